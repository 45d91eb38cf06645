"""Worker processes that may be killed at any moment: each task has a deadline, and only the task at fault pays for its worker's death.

A thread for each worker hands it one task at a time over a socket of its own, so that nothing is shared that a dying worker could
leave locked. Workers are forked by a nursery (see worker.py) and never import the program's main script.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from fastgrpo.errors import SetupError
from fastgrpo.rewards.nursery import START_SECONDS, Nursery, TaskFailed, TaskTimeout, Worker, WorkerDied

TASKS_PER_WORKER = 500  # sympy's caches grow, so workers are renewed


@dataclass(frozen=True, slots=True)
class _Task:
    future: Future
    function: Callable
    arguments: tuple
    deadline: float


class Processes:
    """Runs functions of importable modules in `workers` processes; each process first calls `begin[0](*begin[1])`.

    `prepare` (MODULE:NAME) is called once, in the nursery. No process starts before the first task. Methods may be called from any thread.
    """

    def __init__(self, workers: int, prepare: str, begin: tuple[Callable, tuple]):
        self._prepare, self._begin = prepare, begin
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._nursery: Nursery | None = None
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, daemon=True, name=f"reward-worker-{i}") for i in range(workers)]
        for thread in self._threads:
            thread.start()

    def schedule(self, deadline: float, function: Callable, *arguments) -> Future:
        """The future of `function(*arguments)`, which counts as running from when a worker has it; `deadline` is in seconds from then.

        The future raises TaskTimeout, TaskFailed, WorkerDied, or SetupError where no worker can be had.
        """
        future: Future = Future()
        self._tasks.put(_Task(future, function, arguments, deadline))
        return future

    def close(self) -> None:
        """Kills all workers at once. Tasks that are out fail with WorkerDied, those that wait with SetupError; schedule no more."""
        with self._lock:
            self._closed = True
            if self._nursery is not None:
                self._nursery.close()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(START_SECONDS)

    def _serve(self) -> None:
        """A thread's life: one task after the other, each in this thread's worker, which is replaced when it is lost or old."""
        worker: Worker | None = None
        while (task := self._tasks.get()) is not None:
            try:
                if worker is None or worker.tasks > TASKS_PER_WORKER or not worker.alive():
                    worker = self._replace(worker)
                task.future.set_running_or_notify_cancel()
                task.future.set_result(worker.call(task.function, task.arguments, task.deadline))
            except WorkerDied:
                how, worker = worker.discard(), None
                task.future.set_exception(WorkerDied(how))
            except TaskTimeout as error:
                worker.discard()
                worker = None
                task.future.set_exception(error)
            except Exception as error:  # the one who waits must hear of it, and this thread must go on
                task.future.set_exception(error)
        if worker is not None:
            worker.discard()

    def _replace(self, old: Worker | None) -> Worker:
        """A new worker that has begun. Raises SetupError."""
        if old is not None:
            old.discard()
        worker = self._fork()
        try:
            worker.call(*self._begin, START_SECONDS)
        except (TaskFailed, TaskTimeout, WorkerDied) as error:
            how = worker.discard()
            raise SetupError(f"a reward process cannot start: {how if isinstance(error, WorkerDied) else error}") from None
        return worker

    def _fork(self) -> Worker:
        """A nursery that was killed is replaced, once; when the next is killed as well, the machine is at fault."""
        for _ in range(2):
            with self._lock:
                if self._closed:
                    raise SetupError("the reward processes were closed")
                self._nursery = nursery = self._nursery or Nursery(self._prepare)
            try:
                return Worker(nursery)
            except OSError:
                with self._lock:
                    if self._nursery is nursery and not self._closed:
                        nursery.close()
                        self._nursery = None
        raise SetupError("reward processes are killed as they start: check free memory")
