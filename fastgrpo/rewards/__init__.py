"""From responses to rewards: the verifier, which compares answers with golds, functions and servers of the user's own, their sum.

Importing this package is cheap: sympy and Math-Verify are loaded by worker processes only, which may be killed at any moment.
"""

from fastgrpo.rewards.extract import boxed_answer, extractor, tagged_answer
from fastgrpo.rewards.normalise import normalise
from fastgrpo.rewards.pool import Grader
from fastgrpo.rewards.scorer import Scorer, require_rewards
from fastgrpo.rewards.verify import decide_without_symbols, equivalent

__all__ = [
    "Grader",
    "Scorer",
    "boxed_answer",
    "decide_without_symbols",
    "equivalent",
    "extractor",
    "normalise",
    "require_rewards",
    "tagged_answer",
]
