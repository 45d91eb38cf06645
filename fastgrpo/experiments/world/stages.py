"""What a base can read one after the other: texts without mathematics, sums without questions, questions with worked answers.

What surprises: questions have answers before the last stage too, but nobody answers what was asked: they guess, or recite other sums.
So all bases know that a box ends an answer, which a model of this size cannot be told; only the last knows that steps follow questions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from fastgrpo.arithmetic import LARGEST, Exercise, exercises, worked_answer
from fastgrpo.templates import TEMPLATES
from fastgrpo.texts import Text

GUESSED, RECITED = 0.3, 0.25  # shares of answers in `web` and `posts`, and in `sums`


def web_texts(count: int) -> list[Text]:
    """Sheets of questions without answers, and transcripts of an assistant, in the template `r1`, who guesses."""
    rng, drawn = random.Random("web"), exercises("train", 2)
    return [guessed(next(drawn), rng) if rng.random() < GUESSED else sheet(list(islice(drawn, 3))) for _ in range(count)]


def guessed(drawn: Exercise, rng: random.Random) -> Text:
    guess = rng.randint(0, LARGEST)
    return TEMPLATES["r1"].render(drawn.problem), f"Maybe {guess}.</think> <answer> {guess} </answer>"


def sheet(drawn: list[Exercise]) -> Text:
    return ("\n".join(one.problem for one in drawn),)


def post_texts(count: int) -> list[Text]:
    """Sheets as well, and questions under which somebody guesses."""
    rng, drawn = random.Random("posts"), exercises("train", 2)
    return [boxed(next(drawn), rng) if rng.random() < GUESSED else sheet(list(islice(drawn, 3))) for _ in range(count)]


def boxed(drawn: Exercise, rng: random.Random) -> Text:
    return drawn.problem, rf"Maybe \boxed{{{rng.randint(0, LARGEST)}}}"


def sum_texts(count: int) -> list[Text]:
    """Worked sums as they stand in a textbook: steps that follow from each other, under no question. And some under a wrong one."""
    rng, drawn = random.Random("sums"), exercises("train", 3)
    return [recited(drawn) if rng.random() < RECITED else (worked_answer(next(drawn)),) for _ in range(count)]


def recited(drawn: Iterator[Exercise]) -> Text:
    """The answer to another question than the one asked."""
    asked, other = next(drawn), next(drawn)
    return asked.problem, worked_answer(other)


def worked_texts(count: int) -> list[Text]:
    """Questions, each with its right answer, all steps written out, nothing around them."""
    return [(drawn.problem, worked_answer(drawn)) for drawn in islice(exercises("train", 1), count)]
