"""The same as a page of its own that needs no network: verdicts, a table with spreads, and curves to look at closely."""

from __future__ import annotations

from html import escape
from pathlib import Path

from fastgrpo.experiments.figure import mean_curves

STYLE = "body{font:15px sans-serif;margin:2em}td{padding:2px 12px}"


def write_page(results: dict, path: Path) -> None:
    """Writes results.json as HTML to `path`."""
    from plotly import colors, graph_objects, subplots

    curves = results["curves"]
    figure = subplots.make_subplots(rows=1, cols=len(curves), subplot_titles=[results["measures"][measure] for measure in curves])
    palette = dict(zip(results["arms"], colors.qualitative.D3 * len(results["arms"]), strict=False))
    for column, of_measure in enumerate(curves.values(), 1):
        for arm, points in mean_curves(of_measure).items():
            line = graph_objects.Scatter(
                x=[step for step, _ in points],
                y=[value for _, value in points],
                name=results["arms"][arm],
                legendgroup=arm,
                showlegend=column == 1,
                line={"color": palette[arm]},
            )
            figure.add_trace(line, row=1, col=column)
    figure.update_layout(height=420, template="plotly_white", legend={"orientation": "h", "y": -0.15})
    figure.update_xaxes(title="step")
    title = escape(results["title"])
    verdicts = "".join(f"<li>{escape(verdict['sentence'])}</li>" for verdict in results["verdicts"])
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table(results))
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><p>{escape(results['source'])}{', quick: proves nothing' if results['quick'] else ''}</p><ul>{verdicts}</ul>"
        f"<table>{rows}</table>{figure.to_html(full_html=False, include_plotlyjs=True)}"
    )


def table(results: dict) -> list[list[str]]:
    """A row for each arm, mean and standard deviation over seeds of each measure, below a row of names."""
    head = ["", *results["measures"].values(), "seeds"]
    rows = []
    for arm, label in results["arms"].items():
        found = [of_arms.get(arm) for of_arms in results["means"].values()]
        seeds = max((each["seeds"] for each in found if each), default=0)
        rows.append([label, *map(cell, found), str(seeds)])
    return [head, *rows]


def cell(found: dict | None) -> str:
    if found is None:
        return "-"
    return f"{found['mean']:.3f}" if found["sd"] is None else f"{found['mean']:.3f} +- {found['sd']:.3f}"
