"""Riddles: questions that are easier to check than to answer, and the imperfect text about them that a toy base model reads.

What surprises: its writers guess, check, and see that the guess is wrong, but then only check it again and again. A wrong answer is
known to be wrong long before its end, its length is free, and practice helps slowly: the room in which a biased loss can show itself.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from fastgrpo.texts import Text

LARGEST = 19
DOUBTS = ("Wait, let me check again.", "Hmm, I am not sure.", "Let me look at it once more.")
DOUBT_WHEN_WRONG, DOUBT_WHEN_RIGHT = 0.6, 0.15  # chance of one more check
MOST_DOUBTS = 6


@dataclass(frozen=True, slots=True)
class Riddle:
    """Which of three numbers gives `total` with `operand` added."""

    candidates: tuple[int, int, int]
    operand: int
    answer: int

    @property
    def question(self) -> str:
        first, second, third = self.candidates
        return f"Which of {first}, {second} and {third} gives {self.answer + self.operand} with {self.operand} added?"


def riddles(split: str) -> Iterator[Riddle]:
    """An endless stream of distinct riddles of a split; the hash of its question decides which side a riddle is on, a tenth is held out."""
    rng, seen = random.Random(f"riddles/{split}"), set()
    while True:
        operand = rng.randint(1, 9)
        candidates = tuple(rng.sample(range(1, LARGEST - operand + 1), 3))
        drawn = Riddle(candidates, operand, rng.choice(candidates))
        held_out = hashlib.sha256(drawn.question.encode()).digest()[0] % 10 == 0
        if held_out == (split == "heldout") and drawn not in seen:
            seen.add(drawn)
            yield drawn


def guess_and_check(drawn: Riddle, rng: random.Random) -> str:
    """A guess among the three, its check, more checks of the same (few of a right guess, many of a wrong one), and the guess boxed."""
    guess = rng.choice(drawn.candidates)
    right = guess == drawn.answer
    check = f"{guess}+{drawn.operand}={guess + drawn.operand}, {'yes' if right else 'no'}."
    lines = [f"Try {guess}.", check]
    again = DOUBT_WHEN_RIGHT if right else DOUBT_WHEN_WRONG
    while len(lines) < 2 + 2 * MOST_DOUBTS and rng.random() < again:
        lines += [rng.choice(DOUBTS), check]
    return "\n".join((*lines, rf"\boxed{{{guess}}}"))


def guessing_texts(count: int) -> list[Text]:
    rng = random.Random(0)
    return [(drawn.question, guess_and_check(drawn, rng)) for drawn in islice(riddles("train"), count)]


def riddle_questions(split: str) -> Iterator[tuple[str, str]]:
    return ((drawn.question, str(drawn.answer)) for drawn in riddles(split))
