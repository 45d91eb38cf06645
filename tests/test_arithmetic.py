"""The built-in problems: true, solvable from their text alone, deterministic, and split for good into train and held-out."""

import random
import re
from itertools import islice

import pytest

from fastgrpo.arithmetic import KINDS, LARGEST, exercises, imperfect_answer, problems, worked_answer

STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
UP, DOWN = {"gets", "buys", "finds", "come", "Add"}, {"gives", "loses", "sells", "lost", "Subtract"}


def drawn(count, level="mixed", kind=None, split="train", seed=0):
    return list(islice(exercises(split, seed, level, kind), count))


def apply(total: int, sign: str, operand: int) -> int:
    assert sign != "/" or total % operand == 0
    return {"+": total + operand, "-": total - operand, "*": total * operand, "/": total // operand}[sign]


def solve(text: str) -> int:
    """Reads a problem as a person would, sentence by sentence, and knows nothing of the exercise behind it."""
    if text.startswith("What is the sum of"):
        return sum(map(int, re.findall(r"\d+", text)))
    total = None
    for sentence in text.split("."):
        words, numbers = set(sentence.split()), [int(number) for number in re.findall(r"\d+", sentence)]
        if not numbers:
            continue
        if total is None:
            total = numbers[0] // numbers[1] if "shared" in words else numbers[0]
        elif words & {"boxes", "Multiply"}:
            total *= numbers[0]
        else:
            assert bool(words & UP) != bool(words & DOWN), sentence
            total += numbers[0] if words & UP else -numbers[0]
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["easy", "hard"])
def test_the_text_alone_leads_to_the_answer(kind, level):
    for exercise in drawn(150, level, kind):
        assert solve(exercise.problem) == exercise.answer, exercise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("level", "counts"), [("easy", {1, 2, 3}), ("hard", {4, 5, 6})])
def test_every_step_is_true_and_starts_where_the_last_one_ended(kind, level, counts):
    seen = set()
    for exercise in drawn(150, level, kind):
        seen.add(len(exercise.steps))
        total = None
        for step in exercise.steps:
            left, sign, right, result = STEP.fullmatch(step).groups()
            assert total in (None, int(left)), exercise
            assert apply(int(left), sign, int(right)) == int(result), exercise
            assert 0 <= int(left) <= LARGEST <= 99 and 0 <= int(result) <= LARGEST, exercise
            total = int(result)
        assert total == exercise.answer
    assert seen == counts


def test_mixed_exercises_are_of_both_levels_and_of_all_kinds():
    some = drawn(300)
    assert {len(exercise.steps) for exercise in some} == {1, 2, 3, 4, 5, 6}
    openings = ("Start with", "What is the sum", "A box holds", " are shared equally", " has ")
    assert all(any(opening in exercise.problem for exercise in some) for opening in openings)


def test_a_seed_gives_the_same_problems_and_another_seed_gives_others():
    first = problems("train", "mixed", 100, seed=3)
    assert problems("train", "mixed", 100, seed=3) == first
    assert problems("train", "mixed", 120, seed=3)[:100] == first
    assert {p.problem for p in problems("train", "mixed", 100, seed=4)} != {p.problem for p in first}


def test_problems_of_a_set_are_distinct_and_carry_their_answers_as_text():
    some = problems("heldout", "hard", 200, seed=1) + problems("train", "easy", 2000, seed=1)
    assert len({p.problem for p in some}) == len({p.id for p in some}) == 2200
    assert all(p.answer == str(solve(p.problem)) for p in some)


def test_no_held_out_text_is_ever_trained_on():
    train, held_out = set(), set()
    for level in ("easy", "hard", "mixed"):
        for seed in range(4):
            train |= {p.problem for p in problems("train", level, 1500, seed)}
            held_out |= {p.problem for p in problems("heldout", level, 150, seed)}
    assert not train & held_out


def test_a_worked_answer_is_every_step_and_the_boxed_result():
    assert all(worked_answer(e).split("\n") == [*e.steps, rf"\boxed{{{e.answer}}}"] for e in drawn(300))


def test_what_is_to_be_written_differs_in_length_at_least_five_fold():
    some, rng = drawn(1000), random.Random(0)
    for lengths in ([len("\n".join(e.steps)) for e in some], [len(imperfect_answer(e, rng)) for e in some]):
        assert max(lengths) >= 5 * min(lengths)


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_imperfect_answers_are_right_about_half_of_the_time(level):
    rng = random.Random(0)
    pairs = [(exercise, imperfect_answer(exercise, rng)) for exercise in drawn(2000, level)]
    boxed = [re.findall(r"\\boxed\{(\d+)\}", text) for _, text in pairs]
    right = sum(found[-1:] == [str(exercise.answer)] for (exercise, _), found in zip(pairs, boxed, strict=True))
    assert 0.35 <= right / len(pairs) <= 0.55
    assert 0.1 <= sum(not found for found in boxed) / len(pairs) <= 0.3  # so that the form is to be learned, too
