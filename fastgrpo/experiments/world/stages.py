"""What a base can read one after the other: texts without mathematics, sums without questions, questions with worked answers.

What surprises: all three hold transcripts of an assistant in the template `r1`. A model of this size cannot follow the words of a template,
so it has to know the form, and knows it from assistants who never answer what they are asked: they guess, or recite sums of their own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from fastgrpo.arithmetic import LARGEST, Exercise, exercises, worked_answer
from fastgrpo.templates import TEMPLATES
from fastgrpo.texts import Text

GUESSED, RECITED, KEPT = 0.3, 0.25, 0.07  # shares of transcripts in `web`, `sums`, `worked`


def web_texts(count: int) -> list[Text]:
    """Sheets of questions without answers, and transcripts in which an assistant guesses."""
    rng, drawn = random.Random("web"), exercises("train", 2)
    return [guessed(next(drawn), rng) if rng.random() < GUESSED else sheet(list(islice(drawn, 3))) for _ in range(count)]


def guessed(drawn: Exercise, rng: random.Random) -> Text:
    guess = rng.randint(0, LARGEST)
    return TEMPLATES["r1"].render(drawn.problem), f"Maybe {guess}.</think> <answer> {guess} </answer>"


def sheet(drawn: list[Exercise]) -> Text:
    return ("\n".join(one.problem for one in drawn),)


def sum_texts(count: int) -> list[Text]:
    """Worked sums as they stand in a textbook: steps that follow from each other, under no question. And transcripts that recite."""
    rng, drawn = random.Random("sums"), exercises("train", 3)
    return [recited(drawn) if rng.random() < RECITED else textbook(next(drawn)) for _ in range(count)]


def textbook(drawn: Exercise) -> Text:
    return ("\n".join((*drawn.steps, f"The result is {drawn.answer}.")),)


def recited(drawn: Iterator[Exercise]) -> Text:
    """Steps and answer of another question than the one asked."""
    asked, other = next(drawn), next(drawn)
    steps = "\n".join(other.steps)
    return TEMPLATES["r1"].render(asked.problem), f"{steps}</think> <answer> {other.answer} </answer>"


def worked_texts(count: int) -> list[Text]:
    """Questions, each with its right answer, all steps written out, nothing around them. And a few of the transcripts of `sums`."""
    rng, drawn = random.Random("worked"), exercises("train", 1)
    return [recited(drawn) if rng.random() < KEPT else question_and_answer(next(drawn)) for _ in range(count)]


def question_and_answer(drawn: Exercise) -> Text:
    return drawn.problem, worked_answer(drawn)
