"""Ending early and well: a signal, or a deadline that comes near, is answered at the next point where the run can be saved.

A second signal ends the process at once; checkpoints are whole at any moment. Launchers and queues send one signal to a process and
to its group: what comes within a second of the first is the same one.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from fastgrpo.errors import Preempted
from fastgrpo.ranks import Ranks

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
MARGIN = 1.25  # times the longest stretch so far, that the next one may take
SPARE_SECONDS = 5.0
TOGETHER = 1.0  # seconds


class Stop:
    """Listens for the signals while it is entered. `before` is how many seconds from now the run has to have ended; None is any time."""

    def __init__(self, before: float | None = None):
        self.before, self.signal = before, ""
        self.started = self.last_point = time.monotonic()
        self.longest = self._heard = 0.0
        self._earlier: dict = {}

    def require_more(self, ranks: Ranks, save_seconds: float) -> None:
        """A point where the run can be saved; every rank calls it. Raises Preempted on all, where one is to stop."""
        now = time.monotonic()
        self.longest, self.last_point = max(self.longest, now - self.last_point), now
        left = float("inf") if self.before is None else self.before - (now - self.started)
        due = left < MARGIN * (self.longest + save_seconds) + SPARE_SECONDS
        reasons = ranks.gather(self.signal or ("checkpoint.before is near" if due else ""))
        reason = next(filter(None, reasons), "")
        if reason:
            raise Preempted(reason)

    def elapsed(self) -> float:
        """Seconds since this process began to listen."""
        return time.monotonic() - self.started

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python does not allow it
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # as background jobs do with Ctrl-C
            self._earlier = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, kind, error, trace) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame) -> None:
        if self.signal and time.monotonic() - self._heard < TOGETHER:
            return
        if self.signal:
            self._end(number)
        self._heard = time.monotonic()
        self.signal = signal.Signals(number).name
        again = "Ctrl-C again" if number == signal.SIGINT else "the same again"
        os.write(2, f"fastgrpo: {self.signal}: saving at the end of this phase; {again} ends at once\n".encode())

    def _end(self, number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        os._exit(128 + number)
