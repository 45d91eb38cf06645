"""Sets of questions of different coverage, all of them arithmetic that is written out step by step.

`broad` is every kind of word problem of one to six steps, and what accuracy is measured on. `narrow` is one kind, four to six steps.
`easy` is out of the distribution of the others: a single sum, in words that none of them uses.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from fastgrpo.arithmetic import LARGEST, exercises

Question = tuple[str, str]
"""Its text and the answer."""


def broad_questions(split: str) -> Iterator[Question]:
    return ((drawn.problem, str(drawn.answer)) for drawn in exercises(split, 0))


def narrow_questions(split: str) -> Iterator[Question]:
    return ((drawn.problem, str(drawn.answer)) for drawn in exercises(split, 0, "hard", "chain"))


def easy_questions(split: str) -> Iterator[Question]:
    """Endless, with repetition: there are fewer of them than of the others."""
    rng = random.Random(f"easy/{split}")
    while True:
        question, step = easy_question(rng)
        held_out = hashlib.sha256(question.encode()).digest()[0] % 10 == 0
        if held_out == (split == "heldout"):
            yield question, step.split("=")[1]


def easy_question(rng: random.Random) -> tuple[str, str]:
    """A question and its one step, such as `12-5=7`."""
    first, second = rng.randint(1, LARGEST - 1), rng.randint(1, 9)
    if first + second <= LARGEST and rng.random() < 0.5:
        return f"How much is {first} plus {second}?", f"{first}+{second}={first + second}"
    larger, smaller = max(first, second), min(first, second)
    return f"How much is {larger} minus {smaller}?", f"{larger}-{smaller}={larger - smaller}"
