"""The runs of an experiment: the ordinary commands in processes of their own, resumed where they stopped, never repeated when done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from fastgrpo.errors import FastgrpoError, Preempted
from fastgrpo.experiments.definition import Kind, Settings
from fastgrpo.experiments.kinds import COMMANDS, arguments
from fastgrpo.experiments.planning import PlannedRun

LAST_LINES = 5  # of a failed command: what it says itself


def carry_out(runs: Sequence[PlannedRun], jobs: int, work: Callable[[PlannedRun], None]) -> None:
    """`work` for each run, `jobs` at the same time, in their order but never before what they come after. Raises what `work` raises."""
    waiting, under_way, done = list(runs), {}, set()
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or under_way:
            for run in [run for run in waiting if run.after <= done][: jobs - len(under_way)]:
                waiting.remove(run)
                under_way[pool.submit(work, run)] = run
            ended: set[Future] = wait(under_way, return_when=FIRST_COMPLETED).done
            for future in ended:
                future.result()
                done.add(under_way.pop(future).name)


def command(kind: Kind, settings: Settings, directory: Path, log: Path, threads: int) -> None:
    """`fastgrpo KIND` with its settings into `directory`, where it goes on if it was there before; its output goes to `log`.

    On `threads` CPU threads, unless OMP_NUM_THREADS says otherwise. Raises Preempted where it was told to stop, and FastgrpoError with
    its last lines where it failed.
    """
    words = [kind, *arguments(kind, {**settings, COMMANDS[kind].place: str(directory)}), *COMMANDS[kind].resume]
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads), **os.environ}
    with log.open("a") as output:
        code = subprocess.run(
            [sys.executable, "-m", "fastgrpo", *words], stdout=output, stderr=subprocess.STDOUT, env=environment
        ).returncode
    if code == Preempted.exit_code:
        raise Preempted(f"{' '.join(words[:2])} was told to stop and has been saved: run the experiment again to go on")
    if code:
        said = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        raise FastgrpoError(f"`fastgrpo {' '.join(words[:2])}` ended with {code}; the end of {log}:\n{said}")
