"""From the metrics.jsonl of runs to numbers: each measure by arm and seed, and the curves of it over steps."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

from fastgrpo.experiments.definition import Measure

Row = dict[str, object]


def read_metrics(run: Path) -> list[Row]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def value(measure: Measure, rows: list[Row]) -> float | None:
    """None where no row has it, such as the length of wrong answers where all were right."""
    known = [found for _, found in curve(measure, rows)[-measure.last :] if found is not None]
    return fmean(known) if known else None


def curve(measure: Measure, rows: list[Row]) -> list[tuple[int, float | None]]:
    """(step, value) of every step, or of every evaluation of the measure's set."""
    if not measure.set:
        return [(row["step"], row[measure.column]) for row in rows if measure.column in row]
    found = [(row["step"], row["evaluation"].get(measure.way, {}).get(measure.set)) for row in rows if "evaluation" in row]
    return [(step, evaluation[measure.column]) for step, evaluation in found if evaluation]
