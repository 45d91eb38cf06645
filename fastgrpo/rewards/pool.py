"""Grading in parallel while generation goes on: `submit` returns at once, `results` waits for everything submitted.

Plain numbers and equal strings are settled by the caller's own thread. Any other answer goes to a spawned worker process with a hard
deadline, after which that worker is killed and replaced: no answer, however hostile, delays or fails the ones behind it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Hashable, Iterable
from concurrent import futures
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastgrpo.errors import SetupError
from fastgrpo.rewards import verify
from fastgrpo.rewards.extract import Form, extractor
from fastgrpo.types import Answer, Grade

if TYPE_CHECKING:
    from pebble import ProcessPool

DEFAULT_WORKERS = min(8, os.cpu_count() or 1)  # each holds about 100 MiB; on a node with 8 ranks, more would only compete
TASKS_PER_WORKER = 500  # sympy's caches grow, so workers are renewed
WORKER_MEMORY = 3 * 2**30  # bytes of address space; ordinary answers stay below 0.5 GiB
START_SECONDS = 60.0  # for a worker to start and import sympy on a busy machine; never counts against a deadline
RESTARTS_WITHOUT_PROGRESS = 2


@dataclass(frozen=True, slots=True)
class _Pending:
    """An answer that is with a worker; `future` resolves to True, False, or None for one that no parser could read."""

    answer: str
    gold: Answer
    formatted: bool
    future: Future


class Grader:
    """Grades responses with reward 1 or 0 by one form of answer and one verifier. Use as a context manager, or call `close`.

    `deadline` is in seconds of wall-clock time for each answer, counted from when a worker takes it up. Methods may be called from any
    thread. Workers are started when the first answer needs one. Raises ValueError for settings out of range.
    """

    def __init__(self, form: Form, verifier: verify.Verifier, deadline: float = 1.0, workers: int = DEFAULT_WORKERS):
        if verifier not in ("fast", "math_verify"):
            raise ValueError(f"Grader: verifier {verifier!r} is neither 'fast' nor 'math_verify'")
        if not deadline > 0 or workers < 1:
            raise ValueError(f"Grader: deadline {deadline} must be > 0 seconds and workers {workers} >= 1")
        self._extract = extractor(form)
        self._verifier, self._deadline, self._workers = verifier, deadline, workers
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None
        self._grades: dict[Hashable, Grade] = {}
        self._pending: dict[Hashable, _Pending] = {}

    def submit(self, key: Hashable, text: str, gold: Answer) -> None:
        """Starts to grade the response `text` against `gold`; the grade comes under `key` in the next `results`.

        Raises ValueError for a key that is already waiting there; ValueError or TypeError for a gold that is no answer.
        """
        with self._lock:
            if key in self._grades or key in self._pending:
                raise ValueError(f"Grader.submit: key {key!r} was submitted before; collect results() first")
            answer, formatted = self._extract(text)
            grade = self._decide(answer, gold, formatted)
            if grade is None:
                self._pending[key] = _Pending(answer, gold, formatted, self._schedule(answer, gold))
            else:
                self._grades[key] = grade

    def results(self) -> dict[Hashable, Grade]:
        """The grade of every key submitted since the last call. Waits for the answers that are out; `submit` waits meanwhile.

        Raises SetupError when workers cannot be kept alive although no answer is to blame.
        """
        with self._lock:
            restarts = 0
            for key in list(self._pending):
                while (grade := self._await(key)) is None:
                    if restarts == RESTARTS_WITHOUT_PROGRESS:
                        raise SetupError(_DYING_WORKERS)
                    restarts += 1
                    self._restart()
                restarts = 0
                self._grades[key] = grade
                del self._pending[key]
            grades, self._grades = self._grades, {}
            return grades

    def grade(self, items: Iterable[tuple[str, Answer]]) -> list[Grade]:
        """The grades of (response text, gold) pairs, in their order. Raises ValueError while submissions are still uncollected."""
        if self._grades or self._pending:
            raise ValueError(f"Grader.grade: {len(self._grades) + len(self._pending)} submissions wait for results(); collect them first")
        for key, (text, gold) in enumerate(items):
            self.submit(key, text, gold)
        return [grade for _, grade in sorted(self.results().items())]

    def close(self) -> None:
        """Kills the workers; uncollected grades are lost. The grader may be used again, which starts new workers."""
        with self._lock:
            self._stop()
            self._pending, self._grades = {}, {}

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _decide(self, answer: str | None, gold: Answer, formatted: bool) -> Grade | None:
        """The grade where it takes no worker to tell."""
        golds = verify.gold_texts(gold)
        if answer is None:
            return Grade(0.0, formatted, "ok")
        if len(answer) > max(verify.MAX_ANSWER_CHARS, *map(len, golds)):
            return Grade(0.0, formatted, "unparsable")
        verdict = verify.decide_without_symbols(answer, gold)
        return None if verdict is None else Grade(float(verdict), formatted, "ok")

    def _schedule(self, answer: str, gold: Answer) -> Future:
        """The future of one verdict; a failed one when the pool has broken, which `results` repairs."""
        if self._pool is None:
            self._pool = self._start()
        try:
            return self._pool.schedule(verify.judge, args=(answer, gold, self._verifier), timeout=self._deadline)
        except RuntimeError as broken:
            future: Future = Future()
            future.set_exception(broken)
            return future

    def _start(self) -> ProcessPool:
        from pebble import ProcessPool

        cpu_seconds = int(TASKS_PER_WORKER * self._deadline + START_SECONDS) + 1  # more than a worker can spend on its answers
        return ProcessPool(
            max_workers=self._workers,
            max_tasks=TASKS_PER_WORKER,
            initializer=verify.prepare_worker,
            initargs=(self._verifier, WORKER_MEMORY, cpu_seconds),
            context=multiprocessing.get_context("spawn"),  # a fork would copy the threads' locks and the CUDA context of a trainer
        )

    def _await(self, key: Hashable) -> Grade | None:
        """The grade of the oldest answer still out. Those before it are done, so a worker takes it as soon as one has started."""
        wait([self._pending[key].future], timeout=START_SECONDS + self._deadline)
        return _verdict(self._pending[key])

    def _restart(self) -> None:
        """Replaces a pool that broke or hangs; answers without a verdict go to the new one."""
        self._stop()
        for key, pending in self._pending.items():
            if _verdict(pending) is None:
                self._pending[key] = replace(pending, future=self._schedule(pending.answer, pending.gold))

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None


def _verdict(pending: _Pending) -> Grade | None:
    """The grade that a future holds, or None while it holds none, also because its pool failed."""
    from pebble import ProcessExpired

    if not pending.future.done():
        return None
    error = pending.future.exception()
    if error is None:
        equal = pending.future.result()
        return Grade(float(equal is True), pending.formatted, "unparsable" if equal is None else "ok")
    if isinstance(error, futures.TimeoutError):  # the builtin from Python 3.11 on
        return Grade(0.0, pending.formatted, "timeout")
    if isinstance(error, ProcessExpired):
        return Grade(0.0, pending.formatted, "crash")
    return None if isinstance(error, RuntimeError) else Grade(0.0, pending.formatted, "unparsable")  # RuntimeError: the pool broke


_DYING_WORKERS = (
    "grading workers die or hang as they start, with no answer to blame: check free memory, and that the program's main script "
    "does its work under `if __name__ == '__main__':`, since each worker imports it"
)
