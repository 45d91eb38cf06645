"""The memory that a run recorded: each rank in its log, vLLM at the boundaries of a step; and passes that did not fit."""

from __future__ import annotations

import re
from pathlib import Path

from fastgrpo.report.subject import RunRecord

NUMBER = r"([\d.]+)"
HELD = re.compile(
    f"memory {NUMBER} GiB, {NUMBER} GiB at its peak(?:; GPU: {NUMBER} GiB allocated, {NUMBER} reserved, {NUMBER} free of {NUMBER})?"
)
KINDS = ("host", "host at its peak", "GPU allocated", "GPU reserved", "GPU free, the least", "GPU")
LEAST = "GPU free, the least"


def memory_ledger(run: RunRecord) -> dict:
    """`ranks` in GiB, the most that each rank's log has seen; `moments` in MiB by kind of memory, each the most over the run; `said`
    are sentences. A run that recorded nothing says so."""
    moments: dict[str, dict[str, float]] = {}
    for row in run.steps:
        for moment, kinds in ((row.get("rollout_engine") or {}).get("memory_mib") or {}).items():
            kept = moments.setdefault(moment, {})
            for kind, size in kinds.items():
                if size is not None:
                    pick = min if kind == "device_free" else max
                    kept[kind] = round(pick(kept.get(kind, size), size), 1)
    said = []
    failed = [row for row in run.steps if row.get("out_of_memory")]
    if failed:
        passes, budget = sum(row["out_of_memory"] for row in failed), failed[-1].get("tokens_per_pack")
        said.append(f"{passes} passes did not fit and were made in parts; tokens_per_pack fell to {budget}")
    ranks = {path.stem: found for path in sorted((run.path / "logs").glob("rank_*.log")) if (found := of_rank(path))}
    if not moments and not ranks:
        said.append("no memory was recorded")
    return {"ranks": ranks, "moments": moments, "said": said}


def of_rank(log: Path) -> dict[str, float]:
    """By kind; {} where the log says nothing of memory."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return {}
    found: dict[str, float] = {}
    for match in HELD.finditer(text):
        for kind, size in zip(KINDS, match.groups(), strict=True):
            if size is not None:
                found[kind] = (min if kind == LEAST else max)(found.get(kind, float(size)), float(size))
    return found
