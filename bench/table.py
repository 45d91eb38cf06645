"""Renders pytest-benchmark's JSON as Markdown tables, one for each operation and shape.

pytest bench/ --benchmark-json=results.json && python bench/table.py results.json
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path

COLUMNS = ("rel dX", "rel dW", "peak extra MiB", "tokens/s", "TFLOP/s")
ROOFLINE = "three bare products"


def tables(results: dict) -> str:
    """Times are medians in ms; `ratio` is against the bare products of the same group, where there are any."""
    lines = [f"{results['datetime'][:10]}, Python {results['machine_info']['python_version']}", ""]
    ordered = sorted(results["benchmarks"], key=lambda entry: entry["group"])
    for group, entries in groupby(ordered, key=lambda entry: entry["group"]):
        rows = {entry["params"]["name"]: (entry["stats"]["median"], entry["extra_info"]) for entry in entries}
        note = next(iter(rows.values()))[1]["note"]
        floor = rows.get(ROOFLINE, (None, None))[0]
        lines += [f"**{group}** ({note})", "", "| | ms | ratio | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 3) + "|"]
        for name, (median, info) in sorted(rows.items(), key=lambda row: row[1][0]):
            ratio = f"{median / floor:.2f}" if floor else ""
            lines.append(f"| {name} | {median * 1e3:.2f} | {ratio} | " + " | ".join(cell(info.get(column)) for column in COLUMNS) + " |")
        lines.append("")
    return "\n".join(lines)


def cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:,}"


if __name__ == "__main__":
    print(tables(json.loads(Path(sys.argv[1]).read_text())))
