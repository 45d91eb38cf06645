"""What a step reports: means of its rollouts, and of the loss statistics, which arrive as sums and counts and are divided only here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from fastgrpo.types import GRADE_STATUSES, Grade, ScoredGroup


def merge(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Adds up statistics of packs or ranks; keys ending in `_max` keep the largest."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name.endswith("_max"):
                total[name] = max(total.get(name, value), value)
            else:
                total[name] = total.get(name, 0) + value
    return total


def experience_metrics(groups: Sequence[ScoredGroup], drawn: Sequence[ScoredGroup]) -> dict:
    """What a step learns from, and `refill`: how many groups were drawn beyond the first, how many took a silent one's place,
    and the mean reward over all that were drawn, which the choice of groups cannot flatter."""
    replaced = len({group.prompt.id for group in groups} - {group.prompt.id for group in drawn[: len(groups)]})
    refill = {"drawn": len(drawn) - len(groups), "replaced": replaced, "reward": _mean(_scored(drawn))}
    return rollout_metrics(groups) | ({"refill": refill} if len(drawn) > len(groups) else {})


def rollout_metrics(groups: Sequence[ScoredGroup]) -> dict:
    """Reward (mean over scorable responses), lengths (tokens; of right and wrong responses apart), truncation, groups without
    signal, grader's statuses. `right` is a positive grade of the verifier, or of the whole reward where the verifier has no part."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    grades = [grade for group in groups for grade in group.grades]
    lengths = [rollout.length for rollout in rollouts]
    right = [_positive(grade) and not rollout.truncated for grade, rollout in zip(grades, rollouts, strict=True)]  # as in evaluation
    silent = [[reward for reward in group.rewards if reward is not None] for group in groups if not group.has_signal]
    statuses = [grade.status for grade in grades]
    names = sorted({name for grade in grades for name in grade.parts})
    return {
        "reward": _mean(_scored(groups)),
        "rewards": {name: _mean(p for grade in grades if (p := grade.parts.get(name)) is not None) for name in names},
        "accuracy": fmean(right),
        "formatted": fmean(grade.formatted for grade in grades),
        "length": fmean(lengths),
        "length_right": _mean(length for length, yes in zip(lengths, right, strict=True) if yes),
        "length_wrong": _mean(length for length, yes in zip(lengths, right, strict=True) if not yes),
        "length_max": max(lengths),
        "truncated": fmean(rollout.truncated for rollout in rollouts),
        "zero_signal": len(silent) / len(groups),
        "zero_signal_right": sum(min(rewards, default=0) > 0 for rewards in silent) / len(groups),
        "zero_signal_wrong": sum(max(rewards, default=1) <= 0 for rewards in silent) / len(groups),
        "duplicates": fmean(1 - len({rollout.token_ids for rollout in group.rollouts}) / len(group.rollouts) for group in groups),
        "response_tokens": sum(lengths),
        "grading": {status: statuses.count(status) for status in GRADE_STATUSES},
    }


def update_metrics(stats: Mapping[str, float], grad_norm: float, lr: float) -> dict:
    """One optimizer update; the means are over the tokens that were computed, which leaves out groups without signal."""
    kept = max(stats.get("kept", 0), 1)
    return {
        "loss": stats.get("loss", 0.0),
        "grad_norm": grad_norm,
        "lr": lr,
        "tokens": stats.get("kept", 0),
        "entropy": stats.get("entropy_sum", 0.0) / kept,
        "clip_low": stats.get("clip_low", 0) / kept,
        "clip_high": stats.get("clip_high", 0) / kept,
        "kl_k1": stats.get("k1_sum", 0.0) / kept,
        "kl_k3": stats.get("k3_sum", 0.0) / kept,
        "ratio_max": stats.get("ratio_max", 1.0),
        "logprob_gap": stats.get("sampler_gap_sum", 0.0) / kept,
        "logprob_gap_max": stats.get("sampler_gap_max", 0.0),
        "logprob_gap_k1": stats.get("sampler_k1_sum", 0.0) / kept,
        "logprob_gap_far": stats.get("sampler_far", 0) / kept,
    } | {name.removesuffix("_sum"): stats[name] / kept for name in ("ref_kl_sum", "tis_weight_sum", "tis_capped") if name in stats}


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return fmean(values) if values else None


def _scored(groups: Sequence[ScoredGroup]) -> list[float]:
    return [reward for group in groups for reward in group.rewards if reward is not None]


def _positive(grade: Grade) -> bool:
    value = grade.parts.get("verifier", grade.reward)
    return value is not None and value > 0
