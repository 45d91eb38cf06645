"""The runs of an experiment: the ordinary commands in processes of their own, resumed where they stopped, never repeated when done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fastgrpo.errors import FastgrpoError, Preempted

LAST_LINES = 5  # of a failed command: what it says itself


def command(name: str, recipe: str, settings: Mapping[str, object], log: Path, options: tuple[str, ...] = ()) -> None:
    """`fastgrpo NAME RECIPE KEY=VALUE...` with its output appended to `log`. Raises what the command failed with: its class of error
    and last lines."""
    given = [f"{key}={value}" for key, value in settings.items()]
    arguments = [sys.executable, "-m", "fastgrpo", name, recipe, *given, *options]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        code = subprocess.run(arguments, stdout=output, stderr=subprocess.STDOUT, env={"PYTHONUNBUFFERED": "1", **os.environ}).returncode
    if code == Preempted.exit_code:
        raise Preempted(f"{' '.join(arguments[3:5])} was told to stop and has been saved: run the experiment again to go on")
    if code:
        said = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        raise FastgrpoError(f"`fastgrpo {name} {recipe}` ended with {code}; the end of {log}:\n{said}")
