"""How long responses are by what came of them: unformatted, right, wrong or truncated (the breakdown of arXiv:2503.20783, Table 5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from fastgrpo.accuracy import Prediction

OUTCOMES = ("unformatted", "right", "wrong", "truncated")
ALL = "all"


def outcome(prediction: Prediction) -> str:
    """Exactly one for each response: one that was cut off is truncated, whatever else it is."""
    if prediction.finish_reason == "length":
        return "truncated"
    if not prediction.formatted:
        return "unformatted"
    return "right" if prediction.right else "wrong"


def length_rows(predictions: Sequence[Prediction], groups: Sequence[str]) -> dict[str, dict[str, dict]]:
    """By group, "all" last, and by outcome: how many responses, and their mean length in tokens (None without any)."""
    lengths: dict[str, dict[str, list[int]]] = defaultdict(lambda: {name: [] for name in OUTCOMES})
    for prediction, group in zip(predictions, groups, strict=True):
        for name in (group, ALL):
            lengths[name][outcome(prediction)].append(prediction.length)
    ordered = [*sorted(set(groups) - {ALL}), ALL]
    return {group: {name: _row(lengths[group][name]) for name in OUTCOMES} for group in ordered}


def _row(lengths: list[int]) -> dict:
    return {"responses": len(lengths), "length": fmean(lengths) if lengths else None}
