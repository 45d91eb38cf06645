"""The results of an experiment as a part of a page: verdicts, table, and its curves with a thin line for each seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fastgrpo.errors import InputError
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
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{home / 'results.json'} is of another version: run fastgrpo experiment again, which keeps its runs"
            ) from error
    return found


def experiment_part(results: dict) -> dict:
    """What a page shows of results.json."""
    return {
        "title": results["title"],
        "source": results["source"],
        "quick": results["quick"],
        "arms": list(results["arms"].values()),
        "verdicts": [verdict["sentence"] for verdict in results["verdicts"]],
        "table": table(results),
        "charts": [*curves(results), *bars(results)],
        "excerpts": [
            {"arm": results["arms"][arm], "passages": [passage(each) for each in excerpts]} for arm, excerpts in results["excerpts"].items()
        ],
    }


def passage(excerpt: dict) -> dict:
    """In which a response looks at itself again, and who says so."""
    by = ", ".join([*excerpt["keywords"], *(["the judge"] if excerpt["judged"] else [])])
    said = f"{'right' if excerpt['right'] else 'wrong'}; by {by}"
    return {"question": excerpt["question"], "passage": excerpt["passage"], "said": said}


def curves(results: dict) -> list[dict]:
    """A chart for each drawn measure: the seeds of each arm, and the mean over them."""
    arms, charts = list(results["arms"]), []
    for measure, of_runs in results["curves"].items():
        lines = [as_line(arms.index(arm), "mean", points) for arm, points in mean_curves(of_runs).items()]
        lines += [as_line(arms.index(run.rpartition("-")[0]), "seeds", points) | {"faint": True} for run, points in of_runs.items()]
        axis = results["axes"][measure]
        about = f"By {axis}: each seed, and the mean over them."
        charts.append(as_chart(f"{results['experiment']}-{measure}", results["measures"][measure], about, "number", lines) | {"axis": axis})
    return charts


def bars(results: dict) -> list[dict]:
    """A chart for each panel of bars: a group for each measure, a bar for each arm, a whisker of one standard deviation over
    seeds, and a mark where the paper's number is."""
    charts = []
    for number, (title, measures) in enumerate(results["bars"].items()):
        lines = []
        for place, arm in enumerate(results["arms"]):
            found = [(results["measures"][key], each) for key in measures if (each := results["means"][key].get(arm))]
            points = [(label, each["mean"], each["mean"] - (each["sd"] or 0), each["mean"] + (each["sd"] or 0)) for label, each in found]
            printed = [results["published"][key].get(arm) for key in measures if results["means"][key].get(arm)]
            lines.append(as_line(place, "mean", points) | ({"printed": printed} if any(printed) else {}))
        about = "Means, with one standard deviation over seeds." + (" A mark is the paper's number." if has_printed(lines) else "")
        charts.append(as_chart(f"{results['experiment']}-bars-{number}", title, about, "number", lines) | {"axis": "", "bars": True})
    return charts


def has_printed(lines: Sequence[dict]) -> bool:
    return any("printed" in line for line in lines)
