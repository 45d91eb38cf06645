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
    """By group, "all" last, and by outcome: how many responses, their mean length in tokens, and in characters (None without any)."""
    found: dict[str, dict[str, list[Prediction]]] = defaultdict(lambda: {name: [] for name in OUTCOMES})
    for prediction, group in zip(predictions, groups, strict=True):
        for name in (group, ALL):
            found[name][outcome(prediction)].append(prediction)
    ordered = [*sorted(set(groups) - {ALL}), ALL]
    return {group: {name: _row(found[group][name]) for name in OUTCOMES} for group in ordered}


def _row(found: list[Prediction]) -> dict:
    return {
        "responses": len(found),
        "length": fmean(prediction.length for prediction in found) if found else None,
        "characters": fmean(len(prediction.text) for prediction in found) if found else None,  # the paper's unit, which no tokenizer bends
    }
