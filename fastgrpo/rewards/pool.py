"""Grading in parallel while generation goes on: `submit` returns at once, `results` waits for everything submitted.

Plain numbers, equal strings and answers that nobody could compute are settled by the caller's own thread. Any other goes to a worker
process with a hard deadline, after which that worker is killed and replaced: no answer, however hostile, fails the ones behind it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from fastgrpo.rewards import verify, worker
from fastgrpo.rewards.extract import Form, extractor
from fastgrpo.rewards.limits import too_heavy
from fastgrpo.rewards.nursery import START_SECONDS, TaskFailed, TaskTimeout, WorkerDied
from fastgrpo.rewards.processes import TASKS_PER_WORKER, Processes
from fastgrpo.types import Answer, Grade

DEFAULT_WORKERS = min(8, os.cpu_count() or 1)  # they share most of their 100 MiB; on a node with 8 ranks, more would only compete
WORKER_MEMORY = 3 * 2**30  # bytes of address space; ordinary answers stay below 0.5 GiB


@dataclass(frozen=True, slots=True)
class _Pending:
    """An answer that is with a worker; `future` resolves to True, False, or None for one that no parser could read."""

    formatted: bool
    future: Future


class Grader:
    """Grades responses with reward 1 or 0 by one form of answer and one verifier. Use as a context manager, or call `close`.

    `deadline` is in seconds of wall-clock time for each answer, counted from when a worker takes it up. Methods may be called from any
    thread. Workers are started when the first answer needs one. `compat` repeats the grader of arXiv:2503.20783 where it is plainly
    wrong, too. Raises ValueError for settings out of range.
    """

    def __init__(self, form: Form, verifier: verify.Verifier, deadline: float = 1.0, workers: int = DEFAULT_WORKERS, compat: bool = False):
        if verifier not in ("fast", "math_verify"):
            raise ValueError(f"Grader: verifier {verifier!r} is neither 'fast' nor 'math_verify'")
        if not deadline > 0 or workers < 1:
            raise ValueError(f"Grader: deadline {deadline} must be > 0 seconds and workers {workers} >= 1")
        self._extract = extractor(form, compat)
        self._verifier, self._deadline, self._workers, self._compat = verifier, deadline, workers, compat
        self._lock = threading.Lock()
        self._processes: Processes | None = None
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
                self._pending[key] = _Pending(formatted, self._schedule(answer, gold))
            else:
                self._grades[key] = grade

    def results(self) -> dict[Hashable, Grade]:
        """The grade of every key submitted since the last call. Waits for the answers that are out; `submit` waits meanwhile.

        Raises SetupError when workers cannot be started or kept alive, although no answer is to blame.
        """
        with self._lock:
            grades, self._grades = self._grades, {}
            pending, self._pending = self._pending, {}
            return grades | {key: _grade(answer) for key, answer in pending.items()}

    def grade(self, items: Iterable[tuple[str, Answer]]) -> list[Grade]:
        """The grades of (response text, gold) pairs, in their order. Raises ValueError while submissions are still uncollected."""
        if self._grades or self._pending:
            raise ValueError(f"Grader.grade: {len(self._grades) + len(self._pending)} submissions wait for results(); collect them first")
        for key, (text, gold) in enumerate(items):
            self.submit(key, text, gold)
        return [grade for _, grade in sorted(self.results().items())]

    def formatted(self, text: str) -> bool:
        """Whether a response has the required form."""
        return self._extract(text)[1]

    def close(self) -> None:
        """Kills the workers; uncollected grades are lost. The grader may be used again, which starts new workers."""
        with self._lock:
            if self._processes is not None:
                self._processes.close()
                self._processes = None
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
        verdict = verify.decide_without_symbols(answer, gold, self._compat)
        if verdict is not None:
            return Grade(float(verdict), formatted, "ok")
        return Grade(0.0, formatted, "unparsable") if too_heavy(answer) else None

    def _schedule(self, answer: str, gold: Answer) -> Future:
        if self._processes is None:
            cpu_seconds = int(TASKS_PER_WORKER * self._deadline + START_SECONDS) + 1  # more than a worker can spend on its answers
            begin = (worker.limit, (WORKER_MEMORY, cpu_seconds))
            self._processes = Processes(self._workers, f"{worker.__name__}:prepare_{self._verifier}", begin)
        return self._processes.schedule(self._deadline, worker.judge, answer, gold, self._verifier, self._compat)


def _grade(pending: _Pending) -> Grade:
    """Waits for the verdict, as long as the answers before this one and its own deadline may take."""
    try:
        equal = pending.future.result()
    except TaskTimeout:
        return Grade(0.0, pending.formatted, "timeout")
    except WorkerDied:
        return Grade(0.0, pending.formatted, "crash")
    except TaskFailed:
        return Grade(0.0, pending.formatted, "unparsable")
    return Grade(float(equal is True), pending.formatted, "unparsable" if equal is None else "ok")
