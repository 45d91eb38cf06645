"""The numbers of an experiment as a table of text: for the terminal and for its page."""

from __future__ import annotations


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
