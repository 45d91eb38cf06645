"""Before training: golds that no response can match, graders that accept anything, and reward functions that never answer are found."""

import pytest

from fastgrpo.errors import InputError
from fastgrpo.rewards import Grader, Scorer
from fastgrpo.rewards.preflight import in_form, require_working_functions, require_working_grader, wrong_answer
from fastgrpo.types import Grade, Problem


def problems(*answers):
    return [Problem(f"set.jsonl-{number}", f"question {number}?", answer) for number, answer in enumerate(answers, 1)]


@pytest.mark.parametrize("form", ["boxed", "answer_tag", "orz_tag"])
def test_ordinary_golds_pass_in_every_form(form):
    golds = problems("025", 142.0, r"\frac{1}{2}", r"\left( 3, \frac{\pi}{2} \right)", ["9.6\n", "9.60"], r"$x=5$", r"\text{(E)}", -4, "10")
    with Grader(form, "fast") as grader:
        require_working_grader("set.jsonl", golds, form, grader)


def test_golds_that_do_not_grade_as_right_are_named():
    broken = problems("1", "2", *["unclosed { brace"] * 3, "4")
    with Grader("boxed", "fast") as grader, pytest.raises(InputError) as caught:
        require_working_grader("set.jsonl", broken, "boxed", grader)
    assert "data.train=set.jsonl: 3 of 6 gold answers do not grade as right" in str(caught.value)
    assert "set.jsonl-3: 'unclosed { brace'" in str(caught.value)


class Lenient:
    """Says yes to everything."""

    def grade(self, items):
        return [Grade(1.0, True, "ok") for _ in items]


def test_a_grader_that_accepts_wrong_answers_is_named():
    with pytest.raises(InputError, match=r"3 of 3 wrong answers grade as right, for example set\.jsonl-\d: '\w+' for"):
        require_working_grader("set.jsonl", problems("1", "b", "c"), "boxed", Lenient())


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [("025", "26"), (142.0, "143"), (r"\frac{1}{2}", "3/2"), (["3", "7"], "8"), ("blue", "Red"), ("red", None)],
)
def test_a_wrong_answer_is_near_but_wrong(answer, wrong):
    assert wrong_answer(Problem("p", "?", answer), problems("Red", "red")) == wrong


def test_a_reward_function_that_never_answers_is_found(tmp_path):
    (tmp_path / "rewards.py").write_text("def f(completions, **_):\n    return [missing_name for _ in completions]\n")
    with (
        Grader("boxed", "fast") as grader,
        Scorer(grader, [f"{tmp_path / 'rewards.py'}:f"], "", (), 2, deadline=20, workers=1) as scorer,
        pytest.raises(InputError, match=r"no reward came for the gold answer of set\.jsonl-1: .*missing_name"),
    ):
        require_working_functions(problems("1", "2"), "boxed", scorer, 2)


def test_a_reward_function_sees_the_gold_in_its_form(tmp_path):
    text = "def f(completions, answer, **_):\n    return [1.0 if c == a else None for c, a in zip(completions, answer)]\n"
    (tmp_path / "rewards.py").write_text(text)
    given = [Problem("p-1", "?", "7", {"problem": "?", "answer": r"\boxed{7}"})]
    with Grader("boxed", "fast") as grader, Scorer(grader, [f"{tmp_path / 'rewards.py'}:f"], "", (), 2, deadline=20, workers=1) as scorer:
        require_working_functions(given, "boxed", scorer, 2)


def test_the_form_wraps_an_answer_as_the_extractor_finds_it():
    assert in_form("7", "boxed") == r"\boxed{7}"
    assert in_form("7", "answer_tag") == in_form("7", "orz_tag") == "</think> <answer>7</answer>"
