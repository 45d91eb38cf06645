"""The learning rate of each update of pretraining."""

from __future__ import annotations

import math
from collections.abc import Callable


def learning_rate(peak: float, warmup: int, schedule: str, updates: int) -> Callable[[int], float]:
    """The rate of update k (from 0) of `updates`: peak times the smaller of (k + 1) / warmup and what the schedule leaves.

    That is 1 for constant, 1 - k / updates for linear, (1 + cos(pi k / updates)) / 2 for cosine.
    """
    left = {
        "constant": lambda share: 1.0,
        "linear": lambda share: 1 - share,
        "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    }[schedule]
    return lambda update: peak * min((update + 1) / max(warmup, 1), left(update / updates))
