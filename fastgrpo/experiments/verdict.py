"""What the numbers say of a claim, in words. Nothing but the interval decides: supported, contradicted, or not shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastgrpo.experiments.definition import Claim
from fastgrpo.experiments.statistics import Difference, difference

Values = Mapping[str, Mapping[str, Mapping[int, float]]]
"""A number for each measure, arm and seed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    claim: str
    word: str
    difference: Difference | None
    sentence: str


def judge(claim: Claim, values: Values, labels: Mapping[str, str]) -> Verdict:
    """Supported where the whole interval of the difference lies above the margin, contradicted where it lies below, else not shown."""
    measure, against = claim.measures
    found = difference(values[measure].get(claim.more, {}), values[against].get(claim.than, {}))
    pair = f"{measure}, {labels[claim.more]} minus {labels[claim.than]}"
    if measure != against:
        pair = f"{measure} of {labels[claim.more]} minus {against} of {labels[claim.than]}"
    if found is None:
        return Verdict(claim.text, "not shown", None, f"not shown: {claim.text} ({pair}: no seed has both)")
    if found.low is None:
        about = f"{found.mean:+.3g} with one seed, which gives no interval"
        return Verdict(claim.text, "not shown", found, f"not shown: {claim.text} ({pair}: {about})")
    word = "supported" if found.low > claim.margin else "contradicted" if found.high < claim.margin else "not shown"
    about = f"{found.mean:+.3g}, 95 % interval {found.low:+.3g} to {found.high:+.3g} over {found.pairs} seeds"
    asked = f"; more than {claim.margin:+.3g} was asked for" if claim.margin else ""
    return Verdict(claim.text, word, found, f"{word}: {claim.text} ({pair}: {about}{asked})")
