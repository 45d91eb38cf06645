"""`--gpus N`: the ranks of a run on this machine, started as processes and watched. The first to fail ends all, and is the one heard of."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fastgrpo.ranks import LOST

KILL_AFTER = 5.0  # seconds that a rank has to end by itself
ALSO_FAILING = 2.0  # seconds in which the cause may still overtake a rank that only lost the others: a long traceback takes its time


def run_ranks(count: int, arguments: Sequence[str]) -> int:
    """Runs `fastgrpo ARGUMENTS` as `count` ranks; rank 0 has the terminal. Returns the exit code: of the rank that failed first, or 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // count)
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory(prefix="fastgrpo-ranks-") as folder:
        errors = [Path(folder, f"rank_{rank}") for rank in range(count)]
        try:
            for rank in range(count):
                environment = {"OMP_NUM_THREADS": str(threads)} | os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                command = [sys.executable, "-m", "fastgrpo", *arguments]
                with errors[rank].open("w") as file:
                    output = None if rank == 0 else subprocess.DEVNULL
                    ranks.append(subprocess.Popen(command, env=environment, stdout=output, stderr=file))
            failures = _failures(ranks)
        finally:
            _end(ranks)
        if not failures:
            return 0
        said = {rank: errors[rank].read_text(errors="replace") for rank in failures}
        # Who only lost the others is not the cause, and who crashed less likely so than who was killed, or says what is wrong.
        failed = min(failures, key=lambda rank: (LOST in said[rank], ranks[rank].returncode == 1, rank))
        code = ranks[failed].returncode
        print(_told(failed, code, said[failed]), file=sys.stderr)
        return code if code > 0 else 1


def _failures(ranks: Sequence[subprocess.Popen]) -> list[int]:
    """Waits until all ranks have ended well, or some have failed: these, and those that do within a moment."""
    while True:
        codes = [rank.poll() for rank in ranks]
        if any(codes):
            time.sleep(ALSO_FAILING)
            return [number for number, rank in enumerate(ranks) if rank.poll()]
        if None not in codes:
            return []
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


def _told(rank: int, code: int, said: str) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{said.strip()}\nfastgrpo: rank {rank} {how}; the others were stopped".strip()
