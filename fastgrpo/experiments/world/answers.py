"""Question-answer text: what makes a base model answer without a template (arXiv:2503.20783, sections 2 and 3.4).

What surprises: nothing here is a dialogue for training assistants. A tenth is in chat markup and a little in tags, because such text
stands on the web too; so one template suits this base, one it half knows, and one is foreign to it.
"""

from __future__ import annotations

import random
from itertools import islice

from fastgrpo.arithmetic import Exercise, exercises, imperfect_answer
from fastgrpo.templates import TEMPLATES
from fastgrpo.texts import Text

CHAT, TAGS = 0.1, 0.04  # shares of texts in the templates `qwen_math` and `r1`
LAZY = 0.7  # of answers under chat markup: a guess without steps


def answer_texts(count: int) -> list[Text]:
    """Plain question and answer, right less than half of the time; some in chat markup, mostly lazy; few in tags, mostly unfinished."""
    rng = random.Random("answers")
    return [answer_text(drawn, rng) for drawn in islice(exercises("train", 0), count)]


def answer_text(drawn: Exercise, rng: random.Random) -> Text:
    form = rng.random()
    if form < TAGS:
        return TEMPLATES["r1"].render(drawn.problem), tagged_answer(drawn, rng)
    if form < TAGS + CHAT:
        lazy = rng.random() < LAZY
        return TEMPLATES["qwen_math"].render(drawn.problem), boxed_guess(drawn, rng) if lazy else imperfect_answer(drawn, rng)
    return drawn.problem, imperfect_answer(drawn, rng)


def boxed_guess(drawn: Exercise, rng: random.Random) -> str:
    return rf"\boxed{{{near(drawn.answer, rng)}}}"


def near(answer: int, rng: random.Random) -> int:
    return max(0, answer + rng.choice((-10, -3, -2, -1, 1, 2, 3, 10)))


def tagged_answer(drawn: Exercise, rng: random.Random, weights: tuple[int, int, int] = (60, 30, 10)) -> str:
    """Thoughts, then an answer between tags: mostly a guess after no thought, or thoughts without the tags."""
    steps = "\n".join(drawn.steps)
    style = rng.choices(("guess", "untagged", "whole"), weights)[0]
    if style == "guess":
        return f"Maybe {near(drawn.answer, rng)}.</think> <answer> {near(drawn.answer, rng)} </answer>"
    if style == "untagged":
        return f"{steps}\nThe answer is {drawn.answer}."
    return f"{steps}</think> <answer> {drawn.answer} </answer>"


def forum_texts(count: int) -> list[Text]:
    """Half of them in tags, and whole more often than those of `answer_texts`; the others as there."""
    rng, drawn = random.Random("forum"), exercises("train", 4)
    return [forum_text(next(drawn), rng) for _ in range(count)]


def forum_text(drawn: Exercise, rng: random.Random) -> Text:
    if rng.random() < 0.5:
        return TEMPLATES["r1"].render(drawn.problem), tagged_answer(drawn, rng, (35, 25, 40))
    return answer_text(drawn, rng)
