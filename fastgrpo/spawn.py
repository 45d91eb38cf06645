"""`--gpus N` and `--nodes M`: the ranks of this machine, started as processes and watched. The first to fail ends all, and is heard of.

Signals to stop are passed on to the ranks, which save together; they end with the launcher, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fastgrpo.errors import Preempted
from fastgrpo.nodes import Nodes
from fastgrpo.ranks import LOST, PHASE_FILE, require_gpus
from fastgrpo.stop import SIGNALS
from fastgrpo.wire import Failure

KILL_AFTER = 5.0  # seconds that a rank has to end by itself
ALSO_FAILING = 2.0  # seconds in which the cause may still overtake a rank that only lost the others: a long traceback takes its time
ELSEWHERE = ALSO_FAILING + KILL_AFTER + 3.0  # and in which another node will have told the cause
PR_SET_PDEATHSIG = 1  # of Linux: which signal a process gets when the one that started it is gone


def run_ranks(count: int, arguments: Sequence[str], nodes: Nodes | None = None) -> int:
    """Runs `fastgrpo ARGUMENTS` as `count` ranks on this node; rank 0 has the terminal.

    Returns the exit code: of the rank that failed first, on whichever node, or 0. Raises SetupError where there are fewer GPUs than
    ranks, or the nodes do not meet.
    """
    require_gpus(count)
    nodes = nodes or Nodes()
    with tempfile.TemporaryDirectory(prefix="fastgrpo-ranks-") as folder:
        try:
            first, shared = nodes.meet(count, arguments)
            failure = _run(range(first, first + count), arguments, shared, Path(folder), nodes)
            if failure is None:
                return 0
            nodes.tell(failure)
            print(failure.text, file=sys.stderr, flush=True)
            return failure.code
        finally:
            nodes.close()


def _run(numbers: range, arguments: Sequence[str], shared: dict[str, str], folder: Path, nodes: Nodes) -> Failure | None:
    """Starts these ranks and sees them end; the cause where they did not end well."""
    threads = max(1, (os.cpu_count() or 1) // len(numbers))
    ranks: dict[int, subprocess.Popen] = {}

    def pass_on(number: int, frame) -> None:
        for process in ranks.values():
            process.send_signal(number)

    earlier = {number: signal.signal(number, pass_on) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        for local, rank in enumerate(numbers):
            own = {"RANK": str(rank), "LOCAL_RANK": str(local), PHASE_FILE: str(folder / f"phase_{rank}")}
            environment = {"OMP_NUM_THREADS": str(threads)} | os.environ | shared | own
            with (folder / f"errors_{rank}").open("w") as errors:
                output = None if rank == 0 else subprocess.DEVNULL
                alone = {"start_new_session": True, "preexec_fn": _end_with_launcher}  # Ctrl-C reaches them once, from here
                command = [sys.executable, "-m", "fastgrpo", *arguments]
                ranks[rank] = subprocess.Popen(command, env=environment, stdout=output, stderr=errors, **alone)
        elsewhere = _watch(ranks.values(), nodes)
        failed = {rank: process.poll() for rank, process in ranks.items() if process.poll()}
    finally:
        _end(ranks.values())
        for number, handler in earlier.items():
            signal.signal(number, handler)
    if elsewhere is not None:
        phases = ", ".join(f"rank {rank}{_phase(folder, rank) or ' between phases'}" for rank in numbers)
        return Failure(elsewhere.code, f"{elsewhere.text}\nfastgrpo: stopped here: {phases}")
    if not failed:
        return None
    said = {rank: (folder / f"errors_{rank}").read_text(errors="replace").strip() for rank in failed}
    # Who only lost the others is not the cause, and who crashed less likely so than who was killed, or says what is wrong.
    cause = min(failed, key=lambda rank: (LOST in said[rank], failed[rank] == 1, rank))
    return nodes.cause(_told(cause, failed[cause], said[cause], _phase(folder, cause)), ELSEWHERE)


def _watch(ranks: Sequence[subprocess.Popen], nodes: Nodes) -> Failure | None:
    """Waits until the ranks of all nodes have ended well, or some here have failed, and a moment more; or the failure of another node."""
    while True:
        elsewhere = nodes.failure()
        codes = [rank.poll() for rank in ranks]
        if elsewhere is not None:
            return elsewhere
        if any(codes):
            time.sleep(ALSO_FAILING)
            return None
        if None not in codes and nodes.finished():
            return None
        time.sleep(0.1)


def _end(ranks: Sequence[subprocess.Popen]) -> None:
    for rank in ranks:
        rank.terminate()
    deadline = time.monotonic() + KILL_AFTER
    for rank in ranks:
        try:
            rank.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def _end_with_launcher() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _phase(folder: Path, rank: int) -> str:
    """Where the rank was last, as it left it written; nothing before its first phase, and between two."""
    file = folder / f"phase_{rank}"
    name = file.read_text() if file.exists() else ""
    return f" in the phase '{name}'" if name else ""


def _told(rank: int, code: int, said: str, phase: str) -> Failure:
    if code == Preempted.exit_code:
        return Failure(code, said)
    how = f"was killed by {signal.Signals(-code).name}{phase}" if code < 0 else f"ended with exit code {code}"
    return Failure(max(code, 1), f"{said}\nfastgrpo: rank {rank} {how}; the others were stopped".strip())
