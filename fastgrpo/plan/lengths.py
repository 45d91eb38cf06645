"""How long responses are: a log-normal distribution cut off at the budget, as fixed quantiles, so that a plan comes out the same each time.

What would surprise: the mean is that of the lengths after the cut. With a mean near the budget most responses are cut.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist


@lru_cache(maxsize=64)
def response_lengths(count: int, mean: float, sigma: float, budget: int) -> tuple[int, ...]:
    """`count` lengths in tokens, from 1 to `budget`, whose mean is about `mean`, in the order in which responses would come.

    A mean that the budget does not allow gives `budget` for all.
    """
    normal = [math.exp(sigma * NormalDist().inv_cdf((i + 0.5) / count)) for i in range(count)]
    low, high = 0.0, budget * math.exp(8 * sigma)
    for _ in range(60):  # bisection of the median
        median = (low + high) / 2
        if sum(min(median * value, budget) for value in normal) < min(mean, budget) * count:
            low = median
        else:
            high = median
    lengths = [min(max(1, round(high * value)), budget) for value in normal]
    random.Random(0).shuffle(lengths)
    return tuple(lengths)


def mean(lengths: Sequence[int]) -> float:
    return sum(lengths) / len(lengths)
