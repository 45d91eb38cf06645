"""Ends a process whose phase takes longer than any should, and says which rank and which phase: a hang is an error, not a silence.

A rank that only waits for the others is given half as long again, so that the one that hangs is the first to be heard of.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

from fastgrpo.ranks import LOST, PHASE_FILE

EXCHANGES = os.path.join("torch", "distributed")  # where a rank that waits for the others is found
WAITING = 1.5


class Watchdog:
    """Watches the thread that makes it. `seconds` is the longest that a phase may take; `enter` and `leave` say where the thread is."""

    def __init__(self, rank: int, seconds: float):
        self.rank, self.seconds = rank, seconds
        self.watched = threading.get_ident()
        self.phases: list[tuple[str, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        self._thread.start()

    def enter(self, phase: str) -> None:
        self.phases.append((phase, time.monotonic()))
        self._leave_word()

    def leave(self) -> None:
        self.phases.pop()
        self._leave_word()

    def _leave_word(self) -> None:
        """Writes the phase down where the launcher asked for it: a process that is killed cannot tell."""
        if PHASE_FILE in os.environ:
            Path(os.environ[PHASE_FILE]).write_text(self.phases[-1][0] if self.phases else "")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self.seconds / 4)):
            phase, since = self.phases[-1] if self.phases else ("", time.monotonic())
            taken, frame = time.monotonic() - since, sys._current_frames().get(self.watched)
            if taken > self.seconds and frame is not None:
                waits = _exchanges(frame)
                if not waits or taken > WAITING * self.seconds:
                    self._end(phase, taken, waits, frame)

    def _end(self, phase: str, taken: float, waits: bool, frame: FrameType) -> None:
        what = f"{LOST}; waiting for them" if waits else "hangs"
        limit = f"the phase '{phase}' has taken {taken:.0f} s, and health.phase_seconds is {self.seconds:g}"
        stack = "".join(traceback.format_stack(frame)[-8:])
        print(f"{stack}fastgrpo: rank {self.rank} {what}: {limit}", file=sys.stderr, flush=True)
        os._exit(1)


def _exchanges(frame: FrameType | None) -> bool:
    while frame is not None:
        if EXCHANGES in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
