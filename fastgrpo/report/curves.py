"""The charts of a page with the numbers of runs: a line for each run and quantity. A chart without numbers is left out."""

from __future__ import annotations

from collections.abc import Sequence

from fastgrpo.report.charts import CHARTS, Chart, Value
from fastgrpo.report.subject import RunRecord


def charts(runs: Sequence[RunRecord]) -> list[dict]:
    """All charts that have any number, as a page draws them: held-out accuracy second, seconds per phase last."""
    made = [drawn(chart, runs) for chart in CHARTS]
    made.insert(1, held_out(runs, "accuracy"))
    made.insert(2, held_out(runs, "loss"))
    made.append(phases(runs))
    return [chart for chart in made if chart["lines"]]


def drawn(chart: Chart, runs: Sequence[RunRecord]) -> dict:
    lines = []
    for number, run in enumerate(runs):
        for line in chart.lines:
            points = [(row["step"], line.value(row)) for row in run.steps]
            lines.append(as_line(number, line.name, points))
    return as_chart(chart.id, chart.title, chart.about, chart.form, lines)


def held_out(runs: Sequence[RunRecord], measure: str) -> dict:
    """Accuracy with its 95 % interval by set and way of drawing, or the loss on texts by source."""
    lines = []
    for number, run in enumerate(runs):
        found: dict[str, list] = {}
        for row in run.evaluations:
            for name, of_set in flat(row["evaluation"]):
                if isinstance(of_set.get(measure), (int, float)):
                    interval = [of_set.get("low"), of_set.get("high")]
                    found.setdefault(name, []).append((row["step"], of_set[measure], *interval))
        lines += [as_line(number, name, points) for name, points in found.items()]
    if measure == "loss":
        return as_chart("held_out_loss", "Held-out loss", "On texts that were not read, in nats per token.", "number", lines)
    about = "With 95 % intervals; greedy, and sampled at the training temperature. A set that chose the checkpoint says little about it."
    return as_chart("held_out", "Held-out accuracy", about, "share", lines)


def flat(evaluation: dict) -> list[tuple[str, dict]]:
    """(name, numbers) of each set: training has them by way of drawing, pretraining directly."""
    found = []
    for name, inner in evaluation.items():
        if isinstance(inner, dict) and any(isinstance(each, dict) and "problems" in each for each in inner.values()):
            found += [(f"{name}, {each}", numbers) for each, numbers in inner.items()]
        elif isinstance(inner, dict):
            found.append((name, inner))
    return found


def phases(runs: Sequence[RunRecord]) -> dict:
    """Seconds of each phase by step, its evaluation and checkpoint included; only of a single run, as several would not be read."""
    lines: list[dict] = []
    if len(runs) == 1:
        by_step: dict[int, dict[str, float]] = {}
        for row in runs[0].rows:
            of_step = by_step.setdefault(row.get("step", 0), {})
            for name, seconds in (row.get("seconds") or {}).items():
                of_step[name] = of_step.get(name, 0.0) + (seconds or 0.0)
        names = list(dict.fromkeys(name for found in by_step.values() for name in found))
        lines = [as_line(0, name, [(step, round(found.get(name, 0.0), 3)) for step, found in by_step.items()]) for name in names]
    about = "Where a step's time went, phases on top of each other. The rank that took longest counts."
    return as_chart("phases", "Seconds per phase", about, "seconds", lines) | {"stacked": True}


def as_line(run: int, name: str, points: Sequence[tuple]) -> dict:
    """Points (step, value) or (step, value, low, high). A step that is there twice, of a run that was gone on with, counts once."""
    points = list({point[0]: point for point in points}.values())
    line = {"run": run, "name": name, "x": [point[0] for point in points], "y": [short(point[1]) for point in points]}
    if any(len(point) == 4 and point[2] is not None for point in points):
        line |= {"low": [short(point[2]) for point in points], "high": [short(point[3]) for point in points]}
    return line


def as_chart(id: str, title: str, about: str, form: str, lines: Sequence[dict]) -> dict:
    lines = [line for line in lines if any(value is not None for value in line["y"])]
    return {"id": id, "title": title, "about": about, "form": form, "axis": "step", "lines": lines}


def short(value: Value) -> Value:
    """Six digits, which no eye can tell from more."""
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")
