"""The toy world by name: corpora that base models read, and sets of questions. Each is a function of its size alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastgrpo.experiments.world.answers import answer_texts, forum_texts
from fastgrpo.experiments.world.questions import broad_questions, easy_questions, narrow_questions
from fastgrpo.experiments.world.riddles import guessing_texts, riddle_questions
from fastgrpo.experiments.world.stages import post_texts, sum_texts, web_texts, worked_texts
from fastgrpo.texts import Text

CORPORA: dict[str, Callable[[int], list[Text]]] = {
    "guessing": guessing_texts,
    "answers": answer_texts,
    "forum": forum_texts,
    "web": web_texts,
    "posts": post_texts,
    "sums": sum_texts,
    "worked": worked_texts,
}

QUESTIONS: dict[str, Callable[[str], Iterator[tuple[str, str]]]] = {
    "riddles": riddle_questions,
    "broad": broad_questions,
    "narrow": narrow_questions,
    "easy": easy_questions,
}
