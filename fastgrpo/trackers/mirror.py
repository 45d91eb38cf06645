"""The run's side of a tracker: a bounded queue, a thread that empties it into the tracker's process, and what to say of failures.

`row` only puts a row into the queue. However a tracker fails, hangs or crawls, training is told once and goes on; its end waits for
what is still under way, up to a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from fastgrpo.errors import SetupError
from fastgrpo.trackers import pip_line
from fastgrpo.trackers.numbers import flat_numbers

IMPORT_SECONDS = 120.0  # on a busy machine with cold disks
CLOSING_SECONDS = 30.0  # of all trackers together, at the end of a run
STOPPING_SECONDS = 5.0  # the same, where the run failed or was told to stop: a queue may be waiting
PAUSE_SECONDS = 10.0  # between attempts to start
WAITING_ROWS = 1000

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from fastgrpo.trackers.process import serve; serve(*sys.argv[2:])"


class Mirror:
    """One tracker, whose process starts at once. `home` is the folder of what it keeps. Only its thread talks to the process."""

    def __init__(self, name: str, home: Path):
        self.name, self.unsaid = name, []
        self._rows: queue.Queue[dict] = queue.Queue(WAITING_ROWS)
        self._closing, self._failed, self._lost, self._warned = threading.Event(), False, 0, False
        self._ready: queue.Queue[str] = queue.Queue()
        self._begin: queue.Queue[dict] = queue.Queue()
        self._started = False
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path), name, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is the run's to handle
        )
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"tracker-{name}")
        self._thread.start()

    def require_usable(self, seconds: float) -> None:
        """Raises SetupError where the tracker's package cannot be imported, or lacks what it needs."""
        try:
            problem = self._ready.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            problem = f"importing it took more than {IMPORT_SECONDS:.0f} s"
        if problem:
            raise SetupError(f"log.trackers names {self.name}, which cannot be used: {problem}. Leave it out, or: {pip_line(self.name)}")

    def start(self, arguments: Mapping[str, object]) -> None:
        self._started = True
        self._begin.put({"start": dict(arguments)})

    def row(self, row: Mapping[str, object]) -> None:
        try:
            self._rows.put_nowait({"row": [row["step"], flat_numbers(row)]})
        except queue.Full:
            self._lose(f"is too slow: {WAITING_ROWS} rows wait for it")

    def close(self, failed: bool) -> None:
        """Lets it end; `wait` sees to it that it does."""
        self._failed = failed
        self._begin.put({})
        self._closing.set()

    def wait(self, seconds: float) -> None:
        """Until all was handed on, or `seconds` have passed; then its process is ended."""
        self._thread.join(max(seconds, 0.0) if self._started else 0.0)
        if not self._thread.is_alive():
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.close()
                self._process.wait(max(seconds, 1.0))
        elif self._started:
            self.unsaid.append("did not end in time and was left")
        self._lost += self._rows.qsize()
        if self._lost:
            self.unsaid.append(f"may lack {self._lost} rows")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _work(self) -> None:
        """The thread: starts the tracker's run, again and again if need be, then hands on row after row until the run ends."""
        try:
            self._ready.put(self._answer())
            begin = self._begin.get()
            while begin and (problem := self._call(begin)):
                self._warn(f"cannot start: {problem}")
                if self._closing.wait(PAUSE_SECONDS):
                    return
            for message in self._messages() if begin else ():
                if problem := self._call(message):
                    self._lose(f"refused a row: {problem}")
            if begin and (problem := self._call({"failed": self._failed})):
                self.unsaid.append(f"did not end well: {problem}")
        except (OSError, ValueError):  # ValueError: no JSON, for the process died while it wrote
            how = f"its process ended with code {self._process.wait()}"
            self._ready.put(how)
            self._lose(how)

    def _messages(self) -> Iterator[dict]:
        """Rows as they come, until the run has ended and none is left."""
        while not (self._closing.is_set() and self._rows.empty()):
            with contextlib.suppress(queue.Empty):
                yield self._rows.get(timeout=0.1)

    def _call(self, message: Mapping[str, object]) -> str:
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        return json.loads(self._process.stdout.readline())

    def _lose(self, why: str) -> None:
        self._lost += 1
        self._warn(why)

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self.unsaid.append(f"{why}. Training goes on, and metrics.jsonl has every row; no more is said of it until the end")


class Mirrors:
    """The trackers of one run, by name, with their folder. `say` hears of failures, always from the thread that calls."""

    def __init__(self, names: Sequence[str], home: Path):
        self._mirrors = [Mirror(name, home) for name in dict.fromkeys(names)]

    def require_usable(self) -> None:
        """Waits for the imports. Raises SetupError for a tracker that cannot be used."""
        until = time.monotonic() + IMPORT_SECONDS
        for mirror in self._mirrors:
            mirror.require_usable(until - time.monotonic())

    def start(self, name: str, config: Mapping[str, object], step: int) -> None:
        """Begins, or goes on with, the run `name` after `step`. Nothing is waited for."""
        for mirror in self._mirrors:
            mirror.start({"name": name, "config": config, "step": step})

    def row(self, row: Mapping[str, object], say: Callable[[str], None]) -> None:
        for mirror in self._mirrors:
            mirror.row(row)
        self._speak(say)

    def close(self, failed: bool, say: Callable[[str], None]) -> None:
        """Waits for what is under way, up to CLOSING_SECONDS, or STOPPING_SECONDS where the run `failed`, and ends all processes."""
        for mirror in self._mirrors:
            mirror.close(failed)
        until = time.monotonic() + (STOPPING_SECONDS if failed else CLOSING_SECONDS)
        for mirror in self._mirrors:
            mirror.wait(until - time.monotonic())
        self._speak(say)
        self._mirrors = []

    def _speak(self, say: Callable[[str], None]) -> None:
        for mirror in self._mirrors:
            while mirror.unsaid:
                say(f"WARNING: the tracker {mirror.name} {mirror.unsaid.pop(0)}")
