"""The toy world: questions whose splits never meet, and writers that are wrong as often as they are meant to be."""

import re
from itertools import islice
from statistics import fmean

from fastgrpo.experiments.world import guessing_texts, riddles


def test_splits_never_meet_and_questions_are_distinct():
    train, held_out = ({drawn.question for drawn in islice(riddles(split), 2000)} for split in ("train", "heldout"))
    assert not train & held_out


def test_a_riddle_has_one_right_candidate():
    for drawn in islice(riddles("train"), 500):
        total = int(re.search(r"gives (\d+)", drawn.question)[1])
        assert [c for c in drawn.candidates if c + drawn.operand == total] == [drawn.answer]


def test_a_third_of_the_guesses_is_right_and_wrong_ones_are_checked_more_often():
    lines = {True: [], False: []}
    for question, answer in guessing_texts(3000):
        total, operand = map(int, re.search(r"gives (\d+) with (\d+)", question).groups())
        lines[int(re.search(r"boxed{(\d+)}", answer)[1]) + operand == total].append(answer.count("\n"))
    assert 0.3 < len(lines[True]) / 3000 < 0.37
    assert fmean(lines[False]) > 2 * fmean(lines[True])


def test_the_corpus_is_a_function_of_its_size():
    assert guessing_texts(50) == guessing_texts(50) == guessing_texts(80)[:50]
