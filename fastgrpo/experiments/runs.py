"""The runs of an experiment: the ordinary commands in processes of their own, resumed where they stopped, never repeated when done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fastgrpo.errors import FastgrpoError, Preempted

LAST_LINES = 5  # of a failed command: what it says itself


def command(name: str, recipe: str, settings: Mapping[str, object], log: Path, threads: int, options: tuple[str, ...] = ()) -> None:
    """`fastgrpo NAME RECIPE KEY=VALUE...` on `threads` CPU threads, unless OMP_NUM_THREADS says otherwise; its output goes to `log`.

    Raises Preempted where it was told to stop, and FastgrpoError with its last lines where it failed.
    """
    given = [f"{key}={value}" for key, value in settings.items()]
    arguments = [sys.executable, "-m", "fastgrpo", name, recipe, *given, *options]
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads), **os.environ}
    with log.open("a") as output:
        code = subprocess.run(arguments, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode
    if code == Preempted.exit_code:
        raise Preempted(f"{' '.join(arguments[3:5])} was told to stop and has been saved: run the experiment again to go on")
    if code:
        said = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        raise FastgrpoError(f"`fastgrpo {name} {recipe}` ended with {code}; the end of {log}:\n{said}")
