"""Texts without question-answer form: questions stand among questions, sums among sums, and nobody works anything out.

The few transcripts of an assistant in `web` are there because a model of this size cannot follow the words of the template `r1`: it
knows the form from them, and nothing else, as their answers are guesses.
"""

from __future__ import annotations

import random
from itertools import islice

from fastgrpo.arithmetic import LARGEST, Exercise, exercises
from fastgrpo.templates import TEMPLATES
from fastgrpo.texts import Text

TRANSCRIPTS = 0.3  # share of `web`


def web_texts(count: int) -> list[Text]:
    """Sheets of questions without answers, and transcripts in which an assistant guesses."""
    rng, drawn = random.Random("web"), exercises("train", 2)
    return [guessed(next(drawn), rng) if rng.random() < TRANSCRIPTS else sheet(list(islice(drawn, 3))) for _ in range(count)]


def guessed(drawn: Exercise, rng: random.Random) -> Text:
    guess = rng.randint(0, LARGEST)
    return TEMPLATES["r1"].render(drawn.problem), f"Maybe {guess}.</think> <answer> {guess} </answer>"


def sheet(drawn: list[Exercise]) -> Text:
    return ("\n".join(one.problem for one in drawn),)


def sum_texts(count: int) -> list[Text]:
    """Worked sums as they stand in a textbook: steps that follow from each other, under no question."""
    return [("\n".join((*drawn.steps, f"The result is {drawn.answer}.")),) for drawn in islice(exercises("train", 3), count)]
