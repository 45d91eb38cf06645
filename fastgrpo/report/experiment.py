"""The results of an experiment as a part of a page: verdicts, table, and its curves with a thin line for each seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fastgrpo.experiments.figure import mean_curves
from fastgrpo.experiments.table import table
from fastgrpo.report.curves import as_chart, as_line
from fastgrpo.report.subject import is_experiment


def experiments_of(given: Sequence[str]) -> list[dict]:
    """Those that are named, and those that a named run belongs to; each once, and only where results.json is there."""
    places = {}
    for path in map(Path, given):
        home = path if is_experiment(path) else path.resolve().parent.parent
        if is_experiment(home):
            places[home.resolve()] = home
    found = []
    for home in places.values():
        try:
            found.append(experiment_part(json.loads((home / "results.json").read_text())))
        except (OSError, ValueError):
            continue  # it goes on still: its runs are shown alone
    return found


def experiment_part(results: dict) -> dict:
    """What a page shows of results.json."""
    arms = list(results["arms"])
    charts = []
    for measure, curves in results["curves"].items():
        lines = []
        for run, points in curves.items():
            lines.append(as_line(arms.index(run.rpartition("-")[0]), "seeds", points) | {"faint": True})
        for arm, points in mean_curves(curves).items():
            lines.append(as_line(arms.index(arm), "mean", points))
        about = "By step: each seed, and the mean over them."
        charts.append(as_chart(f"{results['experiment']}-{measure}", results["measures"][measure], about, "number", lines))
    return {
        "title": results["title"],
        "source": results["source"],
        "quick": results["quick"],
        "arms": list(results["arms"].values()),
        "verdicts": [verdict["sentence"] for verdict in results["verdicts"]],
        "table": table(results),
        "charts": charts,
    }
