"""A rollout engine that may fail: an exception or a hang ends it, a new one is built on the learner's weights, and work goes on.

What would surprise: an engine in our own process cannot be killed. It runs in a thread of its own; one that hangs is left behind, and
its thread with it. That frees the run from a stuck engine on a CPU; on a GPU its memory stays taken, so the next build may fail, and the
run then ends with both causes told. With several ranks nothing is rebuilt, since engines are built by all ranks together.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fastgrpo.errors import FastgrpoError
from fastgrpo.rollout import OnFinished
from fastgrpo.rollout.states import IllegalTransition
from fastgrpo.types import Prompt, Rollout, Sampling

BUILD_SECONDS = 1800  # to build or close: compiling kernels and capturing graphs takes minutes on a GPU


class EngineFailure(FastgrpoError):
    """The engine failed more often than is allowed."""


class EngineHang(RuntimeError):
    """The engine did not come back in time."""


class SupervisedEngine:
    """Implements RolloutEngine around one that `build` makes, each time with the learner's current weights.

    `deadline` is the longest, in seconds, that the engine may take for one decoding step or one other call; `restarts` how often it may
    be built again in the whole run. Errors of the user's making, and wrong orders of calls, are not failures and pass through.
    """

    def __init__(self, build: Callable[[], object], deadline: float, restarts: int):
        self.build, self.deadline = build, deadline
        self.restarts = 0 if dist.is_initialized() and dist.get_world_size() > 1 else restarts
        self.failures: list[str] = []
        self.thread: _EngineThread | None = None
        self.engine = None
        self._run(lambda engine: None)

    def generate(
        self, prompts: Sequence[Prompt], n: int, sampling: Sampling, seeds: Sequence[Sequence[int]], on_finished: OnFinished | None = None
    ) -> list[tuple[Rollout, ...]]:
        """See RolloutEngine. After a failure only the responses that had not ended are drawn again, with the same seeds."""
        found: dict[tuple[int, int], Rollout] = {}

        def draw_missing(engine) -> None:
            missing = [(i, j) for i in range(len(prompts)) for j in range(n) if (i, j) not in found]
            thread = self.thread

            def take(k: int, _: int, rollout: Rollout) -> None:
                if thread is not self.thread:
                    raise EngineHang("this engine was given up")
                found[missing[k]] = rollout
                if on_finished is not None:
                    on_finished(*missing[k], rollout)

            if missing:
                engine.generate([prompts[i] for i, _ in missing], 1, sampling, [[seeds[i][j]] for i, j in missing], take)

        self._run(draw_missing)
        return [tuple(found[i, j] for j in range(n)) for i in range(len(prompts))]

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See RolloutEngine. A new engine has the new weights from the start: `weights` is read once at most."""
        engine = self.engine
        self._run(lambda now: now.update_weights(weights) if now is engine else None)

    def sleep(self) -> None:
        self._run(lambda engine: engine.sleep())

    def close(self) -> None:
        """Ends the engine, if there is one."""
        if self.thread is not None:
            self.thread.call(self.engine.close, self._alive_at(), BUILD_SECONDS)
            self.thread = self.engine = None

    def metrics(self) -> dict:
        """The engine's, and what went wrong so far."""
        return self.engine.metrics() | {"failures": self.failures}

    def _run(self, work: Callable[[object], None]) -> None:
        """Does `work` with the engine, building one where there is none, until it succeeds or restarts are used up."""
        while True:
            try:
                if self.thread is None:
                    self.thread, self.engine = _EngineThread(), None
                    self.engine = self.thread.call(self.build, self._alive_at(), max(self.deadline, BUILD_SECONDS))
                return self.thread.call(lambda: work(self.engine), self._alive_at(), self.deadline)
            except (FastgrpoError, IllegalTransition):
                raise
            except Exception as error:
                self._give_up_engine(error)

    def _alive_at(self) -> Callable[[], float]:
        """When the engine last showed life, not before now."""
        started = time.monotonic()
        return lambda: max(started, getattr(self.engine, "beat", started))

    def _give_up_engine(self, error: Exception) -> None:
        self.failures.append(f"{type(error).__name__}: {error}")
        thread, engine, self.thread = self.thread, self.engine, None
        traceback.clear_frames(error.__traceback__)  # frames that hold the engine hold its memory
        if engine is not None and not isinstance(error, EngineHang):
            try:
                thread.call(engine.close, self._alive_at(), BUILD_SECONDS)
            except Exception as second:
                self.failures.append(f"closing it: {type(second).__name__}: {second}")
        self.restarts -= 1
        if self.restarts < 0:
            raise EngineFailure(
                f"the rollout engine failed, and may not be built (again): its failures so far: {'; '.join(self.failures)}"
            ) from error


class _EngineThread:
    """Runs one call after the other. A daemon: a stuck one does not keep the process from ending."""

    def __init__(self):
        self.jobs: queue.SimpleQueue = queue.SimpleQueue()
        self.results: queue.SimpleQueue = queue.SimpleQueue()
        self.device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        threading.Thread(target=self._work, name="rollout engine", daemon=True).start()

    def call(self, work: Callable[[], object], alive_at: Callable[[], float], deadline: float) -> object:
        """The result of `work`, or its exception; EngineHang where `alive_at` is longer ago than the deadline."""
        self._synchronize()
        self.jobs.put(work)
        while True:
            try:
                result, error = self.results.get(timeout=min(1.0, deadline / 4))
            except queue.Empty:
                if time.monotonic() - alive_at() > deadline:
                    raise EngineHang(f"no sign of life for {deadline:g} seconds") from None
                continue
            if error is not None:
                raise error
            self._synchronize()
            return result

    def _work(self) -> None:
        if self.device is not None:
            torch.cuda.set_device(self.device)
        while True:
            try:
                result = self.jobs.get()()
                self._synchronize()
                self.results.put((result, None))
            except BaseException as error:
                self.results.put((None, error))

    def _synchronize(self) -> None:
        """The two threads may use different streams of the device."""
        if self.device is not None:
            torch.cuda.synchronize(self.device)
