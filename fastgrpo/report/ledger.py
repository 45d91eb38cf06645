"""The memory that a run recorded: of vLLM beside the learner at each boundary of a step, in MiB; and passes that did not fit."""

from __future__ import annotations

import re

from fastgrpo.report.subject import RunRecord

OF_PROCESS = re.compile(r"memory ([\d.]+) GiB, ([\d.]+) GiB at its peak")


def memory_ledger(run: RunRecord) -> dict:
    """`moments` by kind of memory, each the largest over the run; `said` are sentences. A run that recorded nothing says so."""
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
    match = OF_PROCESS.search(run.log)
    if match:
        said.append(f"where it stopped, the first rank held {match[1]} GiB of host memory, {match[2]} GiB at its peak")
    if not moments:
        said.append("no memory was recorded: that is done where vLLM samples; fastgrpo plan says what a run should need")
    return {"moments": moments, "said": said}
