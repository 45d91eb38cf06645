"""What counts as an evaluation question that training shows."""

import pytest

from fastgrpo.data import ProblemSet
from fastgrpo.overlap import BOILERPLATE, find_overlap
from fastgrpo.types import Problem

LONG = "A farmer has twelve cows and sells three of them to a neighbour for ninety coins each on Monday"  # 18 words
COMMON = "Express your answer as a common fraction in lowest terms where all numbers are positive integers"  # 16 words


def questions(name: str, *texts: str) -> ProblemSet:
    return ProblemSet(name, tuple(Problem(f"{name}-{row}", text, "1") for row, text in enumerate(texts, 1)))


def overlap(train: list[str], evaluation: list[str]):
    return find_overlap(questions("train", *train), questions("held", *evaluation))


def test_a_copy_is_exact_despite_case_and_white_space():
    found = overlap(["other", "What is\n 1 + 1?", "what is 1 + 1?"], ["nothing", " WHAT is 1 +  1? "])
    assert (found.exact, found.similar) == (((2, 2),), ())  # the first training row that shows it
    assert (found.train, found.evaluation, found.problems) == ("train", "held", 2)


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not():
    words = LONG.split()
    found = overlap(["x", "Yesterday: " + ", ".join(words[2:15]) + "?"], [LONG])
    assert (found.exact, found.similar) == ((), ((2, 1, " ".join(words[2:15]).lower()),))
    assert overlap(["Yesterday " + " ".join(words[2:14]) + " he"], [LONG]).similar == ()


@pytest.mark.parametrize(("train", "same"), [("compute $2+3$", True), ("Compute 2 - 3.", False), ("Compute 2 + 3. Now.", False)])
def test_short_questions_are_compared_whole_with_their_symbols(train, same):
    assert bool(overlap([train], ["Compute 2 + 3."]).similar) == same
    assert not overlap([train], ["Compute 2 + 3."]).exact


def test_a_decimal_point_is_not_punctuation():
    assert not overlap(["Compute 25 * 2."], ["Compute 2.5 * 2."]).similar


def test_a_phrase_of_many_training_questions_gives_nothing_away():
    train = [f"Number {i} squared times pi is what? {COMMON}" for i in range(BOILERPLATE + 1)]
    assert overlap(train, [f"Find x. {COMMON}"]).similar == ()
    assert [pair[:2] for pair in overlap(train[1:], [f"Find x. {COMMON}"]).similar] == [(1, 1)]


def test_each_evaluation_row_is_counted_once_with_its_first_training_row():
    words = LONG.split()
    found = overlap([" ".join(words[:13]), " ".join(words[5:]), LONG + " too"], ["When " + LONG, "short", LONG + "!"])
    assert [pair[:2] for pair in found.similar] == [(1, 1), (1, 3)]
