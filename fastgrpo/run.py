"""The run directory: config, metrics, rollouts, summary and log of one run, each written as it comes; and the clock of its phases."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fastgrpo.accuracy import Prediction
from fastgrpo.errors import FastgrpoError, InputError, SetupError
from fastgrpo.faults import fault
from fastgrpo.lines import Lines, cut_lines
from fastgrpo.lock import Lock
from fastgrpo.manifest import rights_of_files
from fastgrpo.memory import memory_line
from fastgrpo.predictions import write_predictions
from fastgrpo.ranks import Ranks
from fastgrpo.rollout_rows import write_rollouts
from fastgrpo.stop import Stop
from fastgrpo.types import PackedBatch, ScoredGroup
from fastgrpo.watchdog import Watchdog

if TYPE_CHECKING:
    from fastgrpo.resume import Resume

STRAGGLING = (5.0, 2.0)  # a rank straggles beyond so many seconds and so many times what is usual


class Observer(Protocol):
    """Who watches a run: a live display, or plain lines."""

    def begin(self, name: str, steps: int) -> None: ...

    def phase(self, name: str) -> None: ...

    def row(self, row: dict) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


class Mirror(Protocol):
    """Where rows of metrics.jsonl are shown, too. It may fail in any way but by raising, or by keeping anyone waiting."""

    def row(self, row: Mapping[str, object], say: Callable[[str], None]) -> None: ...

    def close(self, failed: bool, say: Callable[[str], None]) -> None: ...


class Run:
    """One run's files, below `directory`: rank 0 writes all of them, the others a log each. Every rank calls the same methods.

    `watchdog` is told of phases; `resume` is where an earlier process left off: of its rows and rollouts only those before that are kept.
    `rows` counts the lines of metrics.jsonl, each of which the `mirror` is shown. Raises InputError where the directory is in use,
    SetupError where it cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        observer: Observer,
        ranks: Ranks | None = None,
        watchdog: Watchdog | None = None,
        resume: Resume | None = None,
        stop: Stop | None = None,
        mirror: Mirror | None = None,
    ):
        self.directory, self.observer, self.ranks, self.stop = directory, observer, ranks or Ranks(), stop or Stop()
        self.seconds: dict[str, float] = {}
        self.rows = resume.progress.rows if resume else 0
        self.started = time.monotonic()
        self._failed_in, self._mirror = "", mirror
        self._watchdog = watchdog
        self._lock = self._metrics = None
        with self.ranks.first_alone():
            try:
                if self.ranks.first:
                    self._prepare(resume)
                (directory / "logs").mkdir(parents=True, exist_ok=True)  # on a machine that does not share rank 0's disk
                self._log = (directory / "logs" / f"rank_{self.ranks.rank}.log").open("a")
            except OSError as error:
                raise SetupError(f"run_dir={directory} cannot be written: {error.strerror}") from error

    def _prepare(self, resume: Resume | None) -> None:
        going_on = resume is not None and resume.in_place
        if not going_on:
            require_usable(self.directory)
        for name in ("rollouts", "evals", "checkpoints", "logs"):
            (self.directory / name).mkdir(parents=True, exist_ok=going_on)
        self._lock = Lock(self.directory / "lock")
        metrics = self.directory / "metrics.jsonl"
        if resume is not None:
            expected, self.rows = self.rows, cut_lines(resume.run / "metrics.jsonl", self.rows, metrics)
            if self.rows < expected:
                self.observer.note(f"{resume.run / 'metrics.jsonl'} holds only {self.rows} of the {expected} rows up to here")
            (self.directory / "summary.json").unlink(missing_ok=True)
            for folder, last in (("rollouts", resume.progress.step), ("evals", resume.progress.evaluated)):
                for path in (self.directory / folder).glob("step_*.parquet"):
                    if int(path.stem.removeprefix("step_")) > last:
                        path.unlink()
        self._metrics = Lines(metrics)

    def stop_point(self, save_seconds: float) -> None:
        """Here the run can be saved: raises Preempted, on all ranks, where one was told to stop, or the deadline is near."""
        self.stop.require_more(self.ranks, save_seconds)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a part of a step under `name`, in seconds."""
        self.observer.phase(name)
        start, self._failed_in = time.monotonic(), ""
        try:
            with self._watchdog.phase(name) if self._watchdog else contextlib.nullcontext():
                yield
        except BaseException:
            self._failed_in = self._failed_in or name
            raise
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def log_row(self, row: dict) -> None:
        """Appends a line to metrics.jsonl, with the seconds of the phases since the last one: those of the rank that took longest.

        What each rank holds in memory goes to its own log: it differs between runs that are equal otherwise.
        """
        of_ranks, self.seconds = self.ranks.gather(self.seconds), {}
        longest = {name: max(seconds.get(name, 0.0) for seconds in of_ranks) for name in of_ranks[0]}
        self._note_stragglers(of_ranks)
        self.log(f"{'evaluation' if 'evaluation' in row else 'step'} {row.get('step')}: {memory_line()}")
        self.rows += 1
        if self.ranks.first:
            row = row | {"seconds": {name: round(seconds, 4) for name, seconds in longest.items()}}
            error = self._metrics.append(row)
            if error is not None:
                self.note(f"metrics.jsonl cannot be written ({error.strerror}); its lines wait in memory")
            self.observer.row(row)
            if self._mirror is not None:
                self._mirror.row(row, self.note)

    def settle(self) -> int:
        """Brings metrics.jsonl to the disk, and says how many lines it has: what a checkpoint relies on."""
        if self.ranks.first:
            self._metrics.flush()
        return self.rows

    def log(self, text: str) -> None:
        """Appends to the log of this process."""
        with contextlib.suppress(OSError):  # a full disk
            self._log.write(f"{time.monotonic() - self.started:9.2f} s  {text}\n")
            self._log.flush()

    def note(self, text: str) -> None:
        """Says something to who watches, and to the log."""
        self.log(text)
        self.observer.note(text)

    def write(self, name: str, text: str) -> None:
        """Writes a whole file of the run directory."""
        if self.ranks.first:
            (self.directory / name).write_text(text)

    def write_rollouts(self, step: int, groups: Sequence[ScoredGroup]) -> None:
        """rollouts/step_N.parquet: a row for each response, in order."""
        self._write_table("rollouts", step, lambda path: write_rollouts(path, step, groups))

    def dump(self, name: str, packs: Sequence[PackedBatch]) -> Path:
        """dumps/NAME-rank_K.safetensors: every tensor of this rank's packs, named NUMBER/FIELD, for a look at what went wrong."""
        from safetensors.torch import save_file

        path = self.directory / "dumps" / f"{name}-rank_{self.ranks.rank}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({f"{number}/{field}": tensor for number, batch in enumerate(packs) for field, tensor in batch.tensors().items()}, path)
        path.chmod(rights_of_files())
        return path

    def write_predictions(self, step: int, predictions: Mapping[str, Sequence[Prediction]]) -> None:
        """evals/step_N.parquet: a row for each graded response, with its way of drawing."""
        self._write_table("evals", step, lambda path: write_predictions(path, predictions))

    def _write_table(self, folder: str, step: int, write: Callable[[Path], None]) -> None:
        """A file to be looked at, never needed to go on: a full disk costs it and no more."""
        if not self.ranks.first:
            return
        path = self.directory / folder / f"step_{step:06d}.parquet"
        try:
            fault(folder, step)
            write(path)
        except OSError as error:
            path.unlink(missing_ok=True)
            self.note(f"WARNING: {path} cannot be written ({error.strerror or error}); training goes on")

    def _note_stragglers(self, of_ranks: Sequence[Mapping[str, float]]) -> None:
        """Says which rank kept the others waiting in a phase, where it did for long."""
        for name in (name for name in of_ranks[0] if len(of_ranks) > 1 and name != "wait"):  # who waits is not who is slow
            seconds = sorted((found.get(name, 0.0), rank) for rank, found in enumerate(of_ranks))
            usual, (slowest, rank) = seconds[(len(seconds) - 1) // 2][0], seconds[-1]
            if slowest > STRAGGLING[0] + STRAGGLING[1] * usual:
                self.note(f"rank {rank} took {slowest:.0f} s for {name}, where {usual:.0f} s are usual")

    def close(self) -> None:
        for file in filter(None, (self._metrics, self._log, self._lock)):
            file.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is not None:
            where = f"rank {self.ranks.rank} stopped {f'in the phase {self._failed_in!r}' if self._failed_in else 'between phases'}"
            ledger = f"{where}; {memory_line()}"
            self.log("".join(traceback.format_exception(kind, error, trace)) + ledger)
            self.log(f"stopped: {kind.__name__}: {error}")
            if isinstance(error, Exception) and not isinstance(error, FastgrpoError):
                print(f"fastgrpo: {ledger}", file=sys.stderr)
        if self._mirror is not None:
            self._mirror.close(error is not None, self.note)
        self.close()


def require_usable(directory: Path) -> None:
    """Raises InputError where a run, or anything else, has left files; SetupError where none could be written."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        reason = "Permission denied" if existing.is_dir() else "Not a directory"
        raise SetupError(f"run_dir={directory} cannot be written: {reason}")
    if existing == directory and any(directory.iterdir()):
        raise InputError(f"run_dir={directory} already holds files; go on with --resume auto, choose another, or remove it")
