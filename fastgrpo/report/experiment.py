"""The results of an experiment as a part of a page: verdicts, table, and its curves with a thin line for each seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fastgrpo.experiments.figure import mean_curves
from fastgrpo.experiments.page import table
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
    """What a page shows of results.json. Bars, axes of their own, and excerpts are there only where an experiment has them."""
    return {
        "title": results["title"],
        "source": results["source"],
        "quick": results["quick"],
        "arms": list(results["arms"].values()),
        "verdicts": [verdict["sentence"] for verdict in results["verdicts"]],
        "table": table(results),
        "charts": [*curves(results), *bars(results)],
        "excerpts": [
            {"arm": results["arms"][arm], "passages": [{"question": each["question"], "passage": each["passage"]} for each in excerpts]}
            for arm, excerpts in results.get("excerpts", {}).items()
        ],
    }


def curves(results: dict) -> list[dict]:
    """A chart for each drawn measure: the seeds of each arm, and the mean over them."""
    arms, charts = list(results["arms"]), []
    for measure, of_runs in results["curves"].items():
        lines = [as_line(arms.index(arm), "mean", points) for arm, points in mean_curves(of_runs).items()]
        lines += [as_line(arms.index(run.rpartition("-")[0]), "seeds", points) | {"faint": True} for run, points in of_runs.items()]
        axis = results.get("axes", {}).get(measure, "step")
        about = f"By {axis}: each seed, and the mean over them."
        charts.append(as_chart(f"curve-{measure}", results["measures"][measure], about, "number", lines) | {"axis": axis})
    return charts


def bars(results: dict) -> list[dict]:
    """A chart for each panel of bars: a group for each measure, a bar for each arm, a whisker of one standard deviation over seeds."""
    charts = []
    for number, (title, measures) in enumerate(results.get("bars", {}).items()):
        lines = []
        for place, arm in enumerate(results["arms"]):
            found = [(results["measures"][key], each) for key in measures if (each := results["means"][key].get(arm))]
            points = [(label, each["mean"], each["mean"] - (each["sd"] or 0), each["mean"] + (each["sd"] or 0)) for label, each in found]
            lines.append(as_line(place, "mean", points))
        about = "Means, with one standard deviation over seeds."
        charts.append(as_chart(f"bars-{number}", title, about, "number", lines) | {"axis": "", "bars": True})
    return charts
