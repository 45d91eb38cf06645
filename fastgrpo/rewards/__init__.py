"""From a response's text to reward 0 or 1: find the answer, compare it with the gold in a process that may be killed.

Importing this package is cheap: sympy and Math-Verify are loaded by worker processes only, pebble when the first worker is needed.
"""

from fastgrpo.rewards.extract import boxed_answer, extractor, tagged_answer
from fastgrpo.rewards.normalise import normalise
from fastgrpo.rewards.pool import Grader
from fastgrpo.rewards.verify import decide_without_symbols, equivalent

__all__ = ["Grader", "boxed_answer", "decide_without_symbols", "equivalent", "extractor", "normalise", "tagged_answer"]
