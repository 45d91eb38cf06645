"""Where a run's time went by phase, and where the next second is best saved: the largest phases with what the run says about them.

Advice follows from numbers of the run alone, and names the setting that acts on them. It predicts no gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from fastgrpo.report.charts import of_step, of_updates
from fastgrpo.report.subject import RunRecord

LARGE = 0.1  # of the whole time: smaller phases get no advice
LONG_TAIL = 2.0  # times the mean response: the longest then leaves most of the batch waiting
HALF_EMPTY = 0.7  # filling of packs below which larger ones would be worth trying


def time_spent(run: RunRecord) -> dict:
    """Seconds by phase, largest first, with share, mean of a step, and advice on the large ones; empty before the first row."""
    totals: dict[str, float] = {}
    for row in run.rows:
        for name, seconds in (row.get("seconds") or {}).items():
            totals[name] = totals.get(name, 0.0) + (seconds or 0.0)
    whole = sum(totals.values())
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return {
        "seconds": round(whole, 2),
        "phases": [
            {
                "name": name,
                "seconds": round(seconds, 2),
                "share": seconds / whole if whole else 0.0,
                "per_step": round(seconds / max(len(run.steps), 1), 3),
                "advice": advice(name, run) if whole and seconds >= LARGE * whole else "",
            }
            for name, seconds in ordered
            if seconds > 0
        ],
        "throughput": throughput(run),
    }


def throughput(run: RunRecord) -> list[list[str]]:
    """(what, value) over the whole run."""
    steps = run.steps
    tokens = sum(row.get("response_tokens") or row.get("tokens") or 0 for row in steps)
    seconds = {name: sum((row.get("seconds") or {}).get(name, 0.0) for row in steps) for name in ("sample", "learn")}
    whole = sum(sum((row.get("seconds") or {}).values()) for row in steps)
    found = [("response tokens" if any("response_tokens" in row for row in steps) else "tokens of texts", f"{tokens:,}")]
    if whole:
        found += [("tokens/s over all phases", f"{tokens / whole:,.0f}"), ("seconds per step", f"{whole / len(steps):.2f}")]
    learned = sum(update.get("tokens", 0) for row in steps for update in row.get("updates") or ())
    if seconds["sample"]:
        found.append(("tokens/s while sampling", f"{tokens / seconds['sample']:,.0f}"))
    if learned and seconds["learn"]:
        found.append(("tokens/s while learning, of those with a gradient", f"{learned / seconds['learn']:,.0f}"))
    return [list(pair) for pair in found] if steps else []


def advice(phase: str, run: RunRecord) -> str:
    """What the run says about a phase, and the setting that acts on it; "" where there is nothing to say."""
    settings = {setting.key: setting.text for setting in run.settings}
    about = {"sample": _sampling, "learn": _learning, "evaluate": _evaluating, "save": _saving, "grade": _grading, "wait": _waiting}
    return about[phase](run.steps, settings) if phase in about else ""


def _mean(steps: Sequence[dict], value) -> float:
    found = [number for row in steps if (number := value(row)) is not None]
    return fmean(found) if found else 0.0


def _sampling(steps: Sequence[dict], settings: dict) -> str:
    said = []
    mean, longest, cut = (_mean(steps, of_step(key)) for key in ("length", "length_max", "truncated"))
    if mean and longest > LONG_TAIL * mean:
        said.append(f"the longest response of a step has {longest / mean:.1f} times the mean tokens, and the batch waits for it")
    if cut > 0.05:
        said.append(f"{cut:.0%} of the responses run to max_new_tokens={settings.get('max_new_tokens')}")
    preempted = max((_engine(row).get("preemptions") or 0 for row in steps), default=0)
    if preempted:
        said.append(f"the KV cache overflowed {preempted} times: raise rollout.cache_gib")
    if settings.get("rollout.engine") == "native":
        said.append("rollout.engine=native decodes in plain transformers: on a GPU, rollout.engine=vllm is made for this")
    return "; ".join(said)


def _engine(row: dict) -> dict:
    return row.get("rollout_engine") or {}


def _learning(steps: Sequence[dict], settings: dict) -> str:
    said = []
    fill, imbalance = _mean(steps, of_updates("fill")), _mean(steps, of_updates("imbalance", max))
    if 0 < fill < HALF_EMPTY and _mean(steps, of_updates("packs")) > 1:
        said.append(f"packs are filled to {fill:.0%}: another tokens_per_pack than {settings.get('tokens_per_pack')} may fit better")
    if imbalance > 0.1:
        said.append(f"the dearest rank has {imbalance:.0%} more to do than the mean")
    updates = settings.get("updates_per_rollout", "1")
    if updates != "1":
        said.append(f"all but the first of {updates} updates cost an extra pass for old log-probs")
    if settings.get("learner.recompute") == "true":
        said.append("learner.recompute=true repeats each forward pass: where memory allows, set it to false")
    if settings.get("learner.compile") == "false":
        said.append("learner.compile=true compiles the layers")
    return "; ".join(said)


def _evaluating(steps: Sequence[dict], settings: dict) -> str:
    return f"eval.every={settings.get('eval.every')}: evaluate less often, or on fewer problems"


def _saving(steps: Sequence[dict], settings: dict) -> str:
    return f"checkpoint.every={settings.get('checkpoint.every')}: save less often, or to a faster disk"


def _grading(steps: Sequence[dict], settings: dict) -> str:
    timeouts = sum((row.get("grading") or {}).get("timeout", 0) for row in steps)
    said = [f"{timeouts} gradings ran into their deadline"] if timeouts else []
    if settings.get("reward.function", "[]") != "[]" or settings.get("reward.url", "''") != "''":
        said.append("a reward of your own decides how long this takes; reward.workers are its processes")
    return "; ".join(said)


def _waiting(steps: Sequence[dict], settings: dict) -> str:
    return "ranks wait for the one with the longest responses: more prompts per rank even this out"
