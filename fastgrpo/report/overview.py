"""The facts of a run that a reader wants first: how far it went, what it gained, how long it took, and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from fastgrpo.report.charts import of_step
from fastgrpo.report.curves import flat
from fastgrpo.report.subject import RunRecord

ENDS = 5  # steps at either end that a mean is taken over


def facts(run: RunRecord) -> list[list[str]]:
    """(what, value) pairs; only what the run has."""
    found = [["steps", str(len(run.steps))]] if run.rows else []
    for name, key, form in (("reward", "reward", "{:.3f}"), ("loss", "loss", "{:.4f}"), ("response length", "length", "{:.0f}")):
        values = [value for row in run.steps if (value := of_step(key)(row)) is not None]
        if values and (name != "loss" or "updates" not in run.steps[0]):
            first, last = fmean(values[:ENDS]), fmean(values[-ENDS:])
            found.append([f"{name}, first and last {min(ENDS, len(values))} steps", f"{form.format(first)} \u2192 {form.format(last)}"])
    found += held_out(run)
    seconds = sum(sum(value or 0.0 for value in (row.get("seconds") or {}).values()) for row in run.rows)
    if seconds:
        found.append(["time in phases", duration(seconds)])
    return found


def held_out(run: RunRecord) -> list[list[str]]:
    """First and last evaluation of each set, with the interval of the last."""
    if not run.evaluations:
        return []
    first, last = dict(flat(run.evaluations[0]["evaluation"])), dict(flat(run.evaluations[-1]["evaluation"]))
    found = []
    for name, after in last.items():
        before = first.get(name, {})
        if "accuracy" in after:
            interval = f" ({after['low']:.1%} to {after['high']:.1%})" if "low" in after else ""
            earlier = f"{before['accuracy']:.1%} \u2192 " if "accuracy" in before and len(run.evaluations) > 1 else ""
            found.append([f"held out, {name}", f"{earlier}{after['accuracy']:.1%}{interval}"])
        elif after.get("loss") is not None:
            earlier = f"{before['loss']:.4f} \u2192 " if before.get("loss") is not None and len(run.evaluations) > 1 else ""
            found.append([f"held-out loss, {name}", f"{earlier}{after['loss']:.4f}"])
    return found


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def checkpoints(run: Path) -> str:
    """One sentence on what is kept; "" without any."""
    folder = run / "checkpoints"
    steps = sorted(int(number) for path in folder.glob("step_*") if (number := path.name.removeprefix("step_")).isdigit())
    if not steps:
        return ""
    best = folder / "best"
    chosen = f", the best is step {best.resolve().name.removeprefix('step_')}" if best.exists() else ""
    return f"Checkpoints kept: step {', '.join(map(str, steps))}{chosen}."
