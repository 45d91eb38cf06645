"""Sets of questions of different coverage, all of them arithmetic that is written out step by step.

`broad` is every kind of word problem, of three to six steps, and what accuracy is measured on. `narrow` is one kind of them, four to six
steps. `easy` is out of the distribution of the others: a single step.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from fastgrpo.arithmetic import Exercise, exercises

EASY = {"train": 1024, "heldout": 128}
Question = tuple[str, str]
"""Its text and the answer."""


def broad_questions(split: str) -> Iterator[Question]:
    return (asked(drawn) for drawn in exercises(split, 0) if len(drawn.steps) >= 3)


def narrow_questions(split: str) -> Iterator[Question]:
    return map(asked, exercises(split, 0, "hard", "chain"))


def easy_questions(split: str) -> Iterator[Question]:
    """Not endless: there are few of them."""
    single = (asked(drawn) for drawn in exercises(split, 0, "easy") if len(drawn.steps) == 1)
    return islice(single, EASY[split])


def asked(drawn: Exercise) -> Question:
    return drawn.problem, str(drawn.answer)
