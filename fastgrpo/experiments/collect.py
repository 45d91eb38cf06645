"""From what runs wrote to numbers. Every kind of run becomes flat rows, so that a measure need not know where they came from.

A row has `of`, what it is of, and `x`, the step or the temperature at which it was measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from fastgrpo.analyze.program import ANALYSES
from fastgrpo.benchmark import set_name
from fastgrpo.experiments.definition import Kind, Measure

Row = dict[str, object]
AVERAGE = "average"
"""The set of rows that hold the unweighted mean accuracy over the sets of an evaluation, as the paper's tables do."""


def read_rows(kind: Kind, directory: Path) -> list[Row]:
    return list(_READERS[kind](directory))


def value(measure: Measure, rows: list[Row]) -> float | None:
    """None where no row has it, such as the length of wrong answers where all were right."""
    points = [found for _, found in curve(measure, rows)]
    start, end = mean_of_known(points[: measure.last]), mean_of_known(points[-measure.last :])
    if measure.when == "gain":
        return None if start is None or end is None else end - start
    return start if measure.when == "start" else end


def mean_of_known(points: Sequence[float | None]) -> float | None:
    known = [point for point in points if point is not None]
    return fmean(known) if known else None


def curve(measure: Measure, rows: list[Row]) -> list[tuple[float, float | None]]:
    """(step or temperature, value) of every row that the measure is of."""
    fitting = [row for row in rows if row["of"] == measure.of and all(row.get(key) == wanted for key, wanted in measure.where.items())]
    return [(row["x"], column(row, measure.column)) for row in fitting if measure.column.split(".")[0] in row]


def column(row: Row, path: str) -> object:
    """`a.b` is column b of what column a holds; None where it holds no b."""
    found: object = row
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _of_training(directory: Path) -> Iterator[Row]:
    for row in _metrics(directory):
        if "evaluation" not in row:
            yield {"of": "step", "x": row["step"], **row}
        for way, sets in row.get("evaluation", {}).items():
            yield from _evaluations(sets, row["step"], way)


def _of_pretraining(directory: Path) -> Iterator[Row]:
    for row in _metrics(directory):
        if "evaluation" not in row:
            yield {"of": "step", "x": row["step"], **row}
        for name, found in row.get("evaluation", {}).items():
            yield {"of": "evaluation", "x": row["step"], "set": set_name(name), **found}


def _of_evaluation(directory: Path) -> Iterator[Row]:
    results = json.loads((directory / "results.json").read_text())
    yield from _evaluations(results["sets"], 0, "sampled" if results["protocol"]["temperature"] else "greedy")


def _of_analysis(directory: Path) -> Iterator[Row]:
    summary = json.loads((directory / "summary.json").read_text())
    for name in ANALYSES:
        for draw in summary.get(name, {}).get("draws", ()):
            yield {"of": name, "x": draw["temperature"], **draw}


def _evaluations(sets: dict[str, dict], x: float, way: str) -> Iterator[Row]:
    where = {"of": "evaluation", "x": x, "way": way}
    for name, found in sets.items():
        yield {**where, "set": set_name(name), **found}
    if sets:
        yield {**where, "set": AVERAGE, "accuracy": fmean(found["accuracy"] for found in sets.values())}


def _metrics(directory: Path) -> list[Row]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


_READERS: dict[Kind, Callable[[Path], Iterator[Row]]] = {
    "train": _of_training,
    "pretrain": _of_pretraining,
    "eval": _of_evaluation,
    "analyze": _of_analysis,
}
