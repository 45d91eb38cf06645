"""Means and spreads over seeds, and paired differences with a 95 % interval. A single seed has a difference and no interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# 97.5 % points of Student's t by degrees of freedom, 1 to 10 and then some; between two the larger one is taken, which widens.
T_975 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    15: 2.131,
    20: 2.086,
    30: 2.042,
}


@dataclass(frozen=True, slots=True)
class Spread:
    """`sd` is the sample's standard deviation over `seeds` runs, None of one."""

    mean: float
    sd: float | None
    seeds: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Of pairs with a common seed: mean, and a 95 % interval by Student's t, None with one pair."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


def spread(values: Sequence[float]) -> Spread:
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """First minus second, by seed; None where no seed has both."""
    pairs = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    if not pairs:
        return None
    if len(pairs) == 1:
        return Difference(pairs[0], None, None, 1)
    half = t_975(len(pairs) - 1) * stdev(pairs) / math.sqrt(len(pairs))
    return Difference(fmean(pairs), fmean(pairs) - half, fmean(pairs) + half, len(pairs))


def t_975(freedom: int) -> float:
    return T_975[max(known for known in T_975 if known <= freedom)]
