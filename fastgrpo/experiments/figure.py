"""The figure of an experiment as PNG: a panel for each curve, a line for the mean of each arm over its thin seeds; then panels of bars.

Bars are means, their whiskers one standard deviation over seeds, and a black mark is what the paper prints.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean

PANEL, ROW = (4.6, 3.4), 3  # inches, and panels in a row
MANY_BARS, BAR = 24, 0.16  # beyond so many in one panel, panels stand below each other, with so many inches for a bar
WIDTH = 0.84  # of a group of bars


def mean_curves(curves: dict[str, list]) -> dict[str, list[tuple[float, float]]]:
    """From `ARM-SEED` to (x, value) to the mean of each arm at each x over the seeds that have a value there."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, points in curves.items():
        for x, value in points:
            if value is not None:
                found[run.rpartition("-")[0]][x].append(value)
    return {arm: [(x, fmean(values)) for x, values in sorted(at.items())] for arm, at in found.items()}


def arms_of(results: dict, measures: list[str]) -> list[str]:
    """Those that have a number, ours or the paper's, of any of the measures."""
    return [arm for arm in results["arms"] if any(arm in results[kind][key] for kind in ("means", "published") for key in measures)]


def draw(results: dict, path: Path) -> None:
    """Writes results.json's curves and bars to `path`."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    palette = colormaps["tab20" if len(results["arms"]) > 10 else "tab10"].colors
    colors = {arm: palette[i % len(palette)] for i, arm in enumerate(results["arms"])}
    panels = [*results["curves"], *results["bars"]]
    bars = max((len(keys) * len(arms_of(results, keys)) for keys in results["bars"].values()), default=0)
    columns = 1 if bars > MANY_BARS else min(len(panels), ROW)
    rows = -(-len(panels) // columns)
    size = (max(PANEL[0] * columns, BAR * bars if columns == 1 else 0), PANEL[1] * rows + 0.25 * len(colors))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for here, measure in zip(axes, results["curves"], strict=False):
        draw_curves(here, results, measure, colors)
    for here, title in zip(axes[len(results["curves"]) :], results["bars"], strict=False):
        draw_bars(here, results, title, colors)
    for spare in axes[len(panels) :]:
        spare.set_axis_off()
    named = {label: handle for here in axes for handle, label in zip(*here.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower left", fontsize="small", ncols=2 if size[0] > 2 * PANEL[0] else 1)
    figure.suptitle(results["title"] + (" (quick: proves nothing)" if results["quick"] else ""))
    figure.savefig(path, dpi=120)


def draw_curves(axes, results: dict, measure: str, colors: dict) -> None:
    curves = results["curves"][measure]
    for run, points in curves.items():
        known = [point for point in points if point[1] is not None]
        axes.plot(*zip(*known, strict=True) if known else ((), ()), color=colors[run.rpartition("-")[0]], linewidth=0.6, alpha=0.4)
    for arm, points in mean_curves(curves).items():
        axes.plot(*zip(*points, strict=True), color=colors[arm], label=results["arms"][arm], linewidth=1.8)
    axes.set(xlabel=results["axes"][measure], title=results["measures"][measure])


def draw_bars(axes, results: dict, title: str, colors: dict) -> None:
    measures = results["bars"][title]
    arms = arms_of(results, measures)
    width = WIDTH / max(len(arms), 1)
    for i, arm in enumerate(arms):
        places = [group - WIDTH / 2 + (i + 0.5) * width for group in range(len(measures))]
        found = [(place, results["means"][key].get(arm)) for place, key in zip(places, measures, strict=True)]
        known = [(place, each["mean"], each["sd"] or 0.0) for place, each in found if each]
        if known:
            at, heights, errors = zip(*known, strict=True)
            axes.bar(at, heights, width, yerr=errors if any(errors) else None, color=colors[arm], label=results["arms"][arm])
        printed = [(place, results["published"][key].get(arm)) for place, key in zip(places, measures, strict=True)]
        for place, value in printed:
            if value is not None:
                axes.hlines(value, place - width / 2, place + width / 2, color="black", label="in the paper")
    axes.set_xticks(
        range(len(measures)), [results["measures"][key] for key in measures], fontsize="small", rotation=15 if len(measures) > 2 else 0
    )
    axes.set_title(title)
