"""The figure of an experiment as PNG: a panel for each curve, a line for the mean of each arm over its thin seeds."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean

PANEL = (4.2, 3.2)  # inches


def mean_curves(curves: dict[str, list]) -> dict[str, list[tuple[int, float]]]:
    """From `ARM-SEED` to (step, value) to the mean of each arm at each step over the seeds that have a value there."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, points in curves.items():
        for step, value in points:
            if value is not None:
                found[run.rpartition("-")[0]][step].append(value)
    return {arm: [(step, fmean(values)) for step, values in sorted(steps.items())] for arm, steps in found.items()}


def draw(results: dict, path: Path) -> None:
    """Writes results.json's curves to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL[0] * len(results["curves"]), PANEL[1]), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (measure, curves) in zip(
        figure.subplots(1, len(results["curves"]), squeeze=False)[0], results["curves"].items(), strict=True
    ):
        colors = {arm: f"C{i}" for i, arm in enumerate(results["arms"])}
        for run, points in curves.items():
            known = [point for point in points if point[1] is not None]
            axes.plot(*zip(*known, strict=True) if known else ((), ()), color=colors[run.rpartition("-")[0]], linewidth=0.6, alpha=0.4)
        for arm, points in mean_curves(curves).items():
            axes.plot(*zip(*points, strict=True), color=colors[arm], label=results["arms"][arm], linewidth=1.8)
        axes.set(xlabel="step", title=results["measures"][measure])
    figure.axes[0].legend(fontsize="small")
    figure.suptitle(results["title"] + (" (quick: proves nothing)" if results["quick"] else ""))
    figure.savefig(path, dpi=120)
