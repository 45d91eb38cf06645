"""The same as a page of its own that needs no network: verdicts, a table with spreads, and curves and bars to look at closely."""

from __future__ import annotations

from html import escape
from pathlib import Path

from fastgrpo.experiments.figure import arms_of, mean_curves

STYLE = "body{font:15px sans-serif;margin:2em}td{padding:2px 12px}pre{background:#f4f4f4;padding:8px;white-space:pre-wrap}"
PANEL_HEIGHT = 380  # pixels


def write_page(results: dict, path: Path) -> None:
    """Writes results.json as HTML to `path`."""
    title = escape(results["title"])
    verdicts = "".join(f"<li>{escape(verdict['sentence'])}</li>" for verdict in results["verdicts"])
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table(results))
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><p>{escape(results['source'])}{', quick: proves nothing' if results['quick'] else ''}</p><ul>{verdicts}</ul>"
        f"<table>{rows}</table>{plots(results)}{passages(results)}"
    )


def passages(results: dict) -> str:
    """In which responses look at themselves again, of the first run of each arm."""
    found = []
    for arm, excerpts in results["excerpts"].items():
        found.append(f"<h2>Passages that reflect: {escape(results['arms'][arm])}</h2>")
        for excerpt in excerpts:
            said = ", ".join([*excerpt["keywords"], *(["the judge"] if excerpt["judged"] else [])])
            about = f"{excerpt['question']}\n\n{excerpt['passage']}\n\n({'right' if excerpt['right'] else 'wrong'}; by {said})"
            found.append(f"<pre>{escape(about)}</pre>")
    return "".join(found)


def plots(results: dict) -> str:
    """A panel below the other for each curve and each group of bars, as HTML with the script in it."""
    from plotly import colors, graph_objects, subplots

    panels = [*(results["measures"][measure] for measure in results["curves"]), *results["bars"]]
    figure = subplots.make_subplots(rows=len(panels), cols=1, subplot_titles=panels, vertical_spacing=0.3 / len(panels))
    palette = dict(zip(results["arms"], colors.qualitative.Dark24 * len(results["arms"]), strict=False))
    shown: set[str] = set()

    def add(kind: str, row: int, arm: str, **data) -> None:
        look = {"line": {"color": palette[arm]}} if kind == "Scatter" else {"marker": {"color": palette[arm]}}
        name = {"name": results["arms"][arm], "legendgroup": arm, "showlegend": arm not in shown}
        figure.add_trace(getattr(graph_objects, kind)(**data, **look, **name), row=row, col=1)
        shown.add(arm)

    for row, (measure, of_measure) in enumerate(results["curves"].items(), 1):
        for arm, points in mean_curves(of_measure).items():
            add("Scatter", row, arm, x=[x for x, _ in points], y=[value for _, value in points])
        figure.update_xaxes(title=results["axes"][measure], row=row, col=1)
    for row, measures in enumerate(results["bars"].values(), 1 + len(results["curves"])):
        for arm in arms_of(results, measures):
            found = [(results["measures"][key], results["means"][key].get(arm)) for key in measures]
            known = [(label, each) for label, each in found if each]
            errors = {"type": "data", "array": [each["sd"] or 0 for _, each in known]}
            add("Bar", row, arm, x=[label for label, _ in known], y=[each["mean"] for _, each in known], error_y=errors)
    figure.update_layout(height=PANEL_HEIGHT * len(panels), template="plotly_white", barmode="group")
    return figure.to_html(full_html=False, include_plotlyjs=True)


def table(results: dict) -> list[list[str]]:
    """A row for each arm, mean and standard deviation over seeds of each measure, below a row of names."""
    head = ["", *results["measures"].values(), "seeds"]
    rows = []
    for arm, label in results["arms"].items():
        found = [of_arms.get(arm) for of_arms in results["means"].values()]
        paper = [of_arms.get(arm) for of_arms in results["published"].values()]
        seeds = max((each["seeds"] for each in found if each), default=0)
        rows.append([label, *map(cell, found, paper), str(seeds)])
    return [head, *rows]


def cell(found: dict | None, paper: float | None = None) -> str:
    beside = "" if paper is None else f" (paper {paper:.3f})"
    if found is None:
        return f"-{beside}"
    return (f"{found['mean']:.3f}" if found["sd"] is None else f"{found['mean']:.3f} +- {found['sd']:.3f}") + beside
