"""Renders results as Markdown tables: pytest-benchmark's JSON, one for each operation and shape, or that of `learning_step.py`.

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


def steps(results: dict) -> str:
    """Seconds by phase, tokens/s of real tokens, the share of time by kind of kernel, and how far the gradient is from the first line's."""
    dropped = "" if results["optimizer"] else ", gradients made and dropped: no optimizer"
    lines = [
        f"{results['datetime'][:10]}, {results['device']}, torch {results['machine_info']['torch']}, {results['dtype']}",
        f"{results['size']}: {results['responses']} responses, {results['tokens']:,} tokens, {results['silent']:.0%} silent{dropped}",
        "",
        "| | old log-probs s | forward, backward s | optimizer s | tokens/s | MFU | peak GiB | outside products | gradient apart |",
        "|---" * 9 + "|",
    ]
    for name, line in results["steps"].items():
        if "skipped" in line:
            lines.append(f"| {name} | {line['skipped']} |" + " |" * 7)
            continue
        outside = line["shares"]["row kernel"] + line["shares"]["other"]
        numbers = [f"{seconds:.3f}" for seconds in line["seconds"].values()] + [f"{line['tokens/s']:,.0f}"]
        numbers += [f"{line[key]:.3g}" if key in line else "unmeasured" for key in ("MFU", "peak GiB")] + [f"{outside:.0%}"]
        apart = "" if "same" not in line else f"{line['gradient apart']:.1e}{'' if line['same'] else ' NOT THE SAME'}"
        lines.append(f"| {name} | {' | '.join([*numbers, apart])} |")
    return "\n".join(lines)


def cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:,}"


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    print(steps(found) if "steps" in found else tables(found))
