"""The numbers of an experiment as a table of text, for the terminal and for a page; the paper's beside ours."""

from __future__ import annotations


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
