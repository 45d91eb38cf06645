"""The responses of a run as rows for a page, read from rollouts/step_*.parquet a step at a time."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.report.pieces import Pieces
from fastgrpo.report.subject import finite

if TYPE_CHECKING:
    import numpy
    import pyarrow

SMALLEST = -20.0  # nats: log-probs below are shown as this
LISTS = ("token_ids", "logprobs")


@dataclass(frozen=True, slots=True)
class StepRollouts:
    """The rows of one step. `lengths` (rows,) in tokens, `logprobs` (rows,) the mean over a response's tokens, in nats."""

    step: int
    table: pyarrow.Table
    lengths: numpy.ndarray
    logprobs: numpy.ndarray

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> list:
        """Of Python values; None throughout where the file has no such column."""
        return self.table.column(name).to_pylist() if name in self.table.column_names else [None] * len(self)


def step_files(run: Path) -> dict[int, Path]:
    """The files by step, in order."""
    found = {}
    for path in (run / "rollouts").glob("step_*.parquet"):
        number = path.stem.removeprefix("step_")
        if number.isascii() and number.isdigit():
            found[int(number)] = path
    return dict(sorted(found.items()))


def count_rows(path: Path) -> int:
    """From the file's footer alone; 0 where it cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(path).num_rows
    except (OSError, pyarrow.ArrowException):
        return 0


def read_step(step: int, path: Path) -> StepRollouts | None:
    """None where the file is not whole: it is being written, or a full disk cut it."""
    import numpy
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path).combine_chunks()
    except (OSError, pyarrow.ArrowException):
        return None
    if not table.num_rows:
        return None
    chunk = table.column("logprobs").chunk(0)
    offsets, flat = chunk.offsets.to_numpy(), chunk.values.to_numpy(zero_copy_only=False)
    sums = numpy.concatenate([[0.0], numpy.cumsum(numpy.nan_to_num(flat, nan=SMALLEST, neginf=SMALLEST))])  # one NaN would reach all
    lengths = numpy.diff(offsets)
    return StepRollouts(step, table, lengths, numpy.diff(sums[offsets]) / numpy.maximum(lengths, 1))


def rows_of(rollouts: StepRollouts, indices: list[int], pieces: Pieces) -> list[dict]:
    """Rows as a page shows them: texts, verdict, and for each token its text's length and log-prob in hundredths of a nat."""
    import numpy

    found = []
    for index, row in zip(indices, rollouts.table.take(numpy.array(indices, dtype=numpy.int64)).to_pylist(), strict=True):
        cut = pieces.lengths(row["token_ids"], row["text"])
        found.append(
            {
                "step": rollouts.step,
                "row": index,
                "id": row["prompt_id"],
                "sample": row["sample"],
                "problem": row["problem"],
                "gold": readable(row["answer"]),
                "text": row["text"],
                "length": int(rollouts.lengths[index]),
                "truncated": row["finish_reason"] == "length",
                "formatted": row["formatted"],
                "grading": row["grading"],
                "reward": known(row["reward"]),
                "parts": finite(json.loads(row["rewards"] or "{}")),
                "advantage": known(row["advantage"]),
                "logprob": known(round(float(rollouts.logprobs[index]), 3)),
                "lengths": cut,
                "logprobs": None if cut is None else [hundredths(value) for value in row["logprobs"]],
            }
        )
    return found


def readable(answer: str) -> str:
    """A gold, which is stored as JSON: text as it is, anything else as JSON."""
    try:
        gold = json.loads(answer)
    except ValueError:
        return answer
    return gold if isinstance(gold, str) else answer


def known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def hundredths(logprob: float) -> int:
    return round(100 * max(logprob, SMALLEST)) if math.isfinite(logprob) else round(100 * SMALLEST)
