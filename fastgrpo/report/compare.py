"""Two runs beside each other: settings that differ, numbers at the last step that both reached, last evaluations, seconds."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from fastgrpo.errors import InputError
from fastgrpo.report.charts import CHARTS
from fastgrpo.report.curves import held_out
from fastgrpo.report.page import distinct
from fastgrpo.report.settings import differences
from fastgrpo.report.spent import time_spent
from fastgrpo.report.subject import RunRecord, read_run, require_run

if TYPE_CHECKING:
    from rich.table import Table

WINDOW = 5  # steps that a number of training is a mean over


def compare_runs(first: str, second: str) -> dict:
    """In types of JSON. Raises InputError for what is no run, and for the same one twice."""
    paths = [require_run(Path(name)) for name in (first, second)]
    if paths[0].resolve() == paths[1].resolve():
        raise InputError(f"{first} and {second} are the same run; name two")
    runs = [read_run(path) for path in paths]
    common = min(max((row["step"] for row in run.steps), default=0) for run in runs)
    return {
        "runs": [
            {"name": name, "path": str(run.path), "state": run.state, "said": run.said, "notes": list(run.notes)}
            for name, run in zip(distinct([run.name for run in runs], [str(run.path) for run in runs]), runs, strict=True)
        ],
        "common_step": common,
        "window": WINDOW,
        "settings": differences([run.settings for run in runs]),
        "metrics": metrics(runs, common),
        "held_out": evaluations(runs),
        "seconds": phases(runs),
    }


def metrics(runs: list[RunRecord], common: int) -> list[dict]:
    """Each number that either run has: its mean over the last steps up to `common`, and how far they are apart."""
    found = []
    for chart in CHARTS:
        for line in chart.lines:
            values = []
            for run in runs:
                known = [value for row in run.steps if row["step"] <= common and (value := line.value(row)) is not None]
                values.append(fmean(known[-WINDOW:]) if known else None)
            if any(value is not None for value in values):
                found.append({"chart": chart.id, "name": f"{chart.title}: {line.name}", "form": chart.form} | pair(values))
    return found


def evaluations(runs: list[RunRecord]) -> list[dict]:
    """Held-out accuracy of each set at the last step where both were evaluated, and at the last of each; `apart` says whether two
    95 % intervals leave no overlap."""
    points: dict[str, list[dict]] = {}
    for line in held_out(runs, "accuracy")["lines"]:
        intervals = zip(line["low"], line["high"], strict=True) if "low" in line else [None] * len(line["x"])
        of_runs = points.setdefault(line["name"], [{}, {}])
        of_runs[line["run"]] |= {
            step: {"value": value, "interval": interval and list(interval)}
            for step, value, interval in zip(line["x"], line["y"], intervals, strict=True)
        }
    found = []
    for name, (a, b) in points.items():
        both, last = sorted(a.keys() & b.keys())[-1:] * 2, [max(of_run, default=None) for of_run in (a, b)]
        found += [beside(name, (a, b), steps) for steps in ([both, last] if both and both != last else [last])]
    return found


def beside(name: str, points: tuple[dict, dict], steps: list) -> dict:
    """One set at one step of either run."""
    chosen = [of_run.get(step) or {} for of_run, step in zip(points, steps, strict=True)]
    intervals = [each.get("interval") for each in chosen]
    apart = all(intervals) and (intervals[0][0] > intervals[1][1] or intervals[1][0] > intervals[0][1])
    return {"name": name, "steps": steps, "intervals": intervals, **pair([each.get("value") for each in chosen]), "apart": apart}


def phases(runs: list[RunRecord]) -> list[dict]:
    """Seconds per step of each phase, over whole runs."""
    spent = [{phase["name"]: phase["per_step"] for phase in time_spent(run)["phases"]} for run in runs]
    return [{"name": name} | pair([of_run.get(name) for of_run in spent]) for name in dict.fromkeys([*spent[0], *spent[1]])]


def pair(values: list) -> dict:
    a, b = values
    return {"values": [a, b], "difference": None if a is None or b is None else b - a}


def tables(found: dict) -> list[Table | str]:
    """For the terminal."""
    from rich.table import Table
    from rich.text import Text

    names = [run["name"] for run in found["runs"]]

    def made(title: str, first: str, rows: list[list[str]], last: str | None = "difference") -> list[Table]:
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
        for number, name in enumerate([first, *names, *([last] if last else [])]):
            table.add_column(Text(name), justify="right" if number and last else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        return [table] if rows else []

    parts: list = [Text("\n".join(f"{run['name']}: {line}" for run in found["runs"] for line in (run["said"], *run["notes"])))]
    settings = [[row["key"], *(text if text is not None else "-" for text in row["texts"])] for row in found["settings"]]
    parts += made("Settings", "", settings, None) or [Text("The settings do not differ.")]
    title = f"Training, mean of the last {found['window']} steps up to step {found['common_step']}, which both reached"
    parts += made(title, "", [[row["name"], *numbers(row, row["form"])] for row in found["metrics"]])
    held = [[f"{row['name']}, {steps_of(row)}", *numbers(row, "share")] for row in found["held_out"]]
    for row, cells in zip(found["held_out"], held, strict=True):
        cells[-1] += "  intervals apart" if row["apart"] else "  intervals overlap" if all(row["intervals"]) else ""
    parts += made("Held-out accuracy, with 95 % intervals", "", held)
    parts += made("Seconds per step", "", [[row["name"], *numbers(row, "number")] for row in found["seconds"]])
    return parts


def steps_of(row: dict) -> str:
    a, b = row["steps"]
    return f"step {a}" if a == b else f"last of each: {a}, {b}".replace("None", "none")


def numbers(row: dict, form: str) -> list[str]:
    """Both values and their difference as text."""
    return [*(written(value, form) for value in row["values"]), written(row["difference"], form, sign=True)]


def written(value: float | None, form: str, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{100 * value:{'+' if sign else ''}.3g} %" if form == "share" else f"{value:{'+' if sign else ''}.4g}"
