"""Ends a process whose phase takes longer than any should, and says which rank and which phase: a hang is an error, not a silence.

A rank that only waits for the others is given half as long again, so that the one that hangs is the first to be heard of.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fastgrpo.ranks import LOST, PHASE_FILE

EXCHANGES = os.path.join("torch", "distributed")  # where a rank that waits for the others is found
WAITING = 1.5
OUTSIDE = 1800.0  # seconds for what is no phase of a step: loading a model, building an engine


class Watchdog:
    """Watches the thread that makes it, until it is closed. `seconds` is the longest that a `phase` may take; what is done outside of
    phases, as `stage` names it, has half an hour at least."""

    def __init__(self, rank: int, seconds: float):
        self.rank, self.seconds = rank, seconds
        self.watched = threading.get_ident()
        self.phases: list[tuple[str, float]] = []
        self.stage("starting")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        self._thread.start()

    def stage(self, name: str) -> None:
        self.phases[:1] = [(name, time.monotonic())]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.phases.append((name, time.monotonic()))
        self._leave_word()
        try:
            yield
        finally:
            self.phases.pop()
            self.stage("between phases")
            self._leave_word()

    def _leave_word(self) -> None:
        """Writes the phase down where the launcher asked for it: a process that is killed cannot tell."""
        if PHASE_FILE in os.environ:
            Path(os.environ[PHASE_FILE]).write_text(self.phases[-1][0] if len(self.phases) > 1 else "")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self.seconds / 4)):
            phase, since = self.phases[-1]
            limit = self.seconds if len(self.phases) > 1 else max(self.seconds, OUTSIDE)
            taken, frame = time.monotonic() - since, sys._current_frames().get(self.watched)
            if taken > limit and frame is not None:
                waits = _exchanges(frame)
                if not waits or taken > WAITING * limit:
                    self._end(phase, taken, limit, waits, frame)

    def _end(self, phase: str, taken: float, limit: float, waits: bool, frame: FrameType) -> None:
        what = f"{LOST}; waiting for them" if waits else "hangs"
        why = f"the phase '{phase}' has taken {taken:.0f} s, and may take {limit:g} (health.phase_seconds)"
        stack = "".join(traceback.format_stack(frame)[-8:])
        print(f"{stack}fastgrpo: rank {self.rank} {what}: {why}", file=sys.stderr, flush=True)
        os._exit(1)


def _exchanges(frame: FrameType | None) -> bool:
    while frame is not None:
        if EXCHANGES in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
