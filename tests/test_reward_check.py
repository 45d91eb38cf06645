"""`fastgrpo reward check`: labelled responses against the grader, golds against themselves, and what it says about rows it cannot use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastgrpo.cli import make_app
from fastgrpo.errors import InputError
from fastgrpo.reward_check import check_rewards

ROOT = Path(__file__).parents[1]
GRADED = ROOT / "tests" / "fixtures" / "grader_cases.jsonl"  # labelled by the grader of arXiv:2503.20783
TAGGED = "</think> <answer>{}</answer>"


def labelled(response: str, reward: float, gold="2", **columns) -> dict:
    return {"response": response, "gold": gold, "reward": reward} | columns


@pytest.fixture
def file(tmp_path):
    """Writes rows, or raw lines, as a .jsonl file."""

    def write(*rows: dict | str) -> Path:
        path = tmp_path / "cases.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write


def check(path: Path, verifier: str = "fast", form: str = "boxed", compat: bool = False, answer: str = "answer"):
    return check_rewards(path, verifier, form, compat, answer)


def command(*arguments):
    return CliRunner().invoke(make_app(), ["reward", "check", *map(str, arguments)])


def test_agreement_and_every_disagreement_are_reported(file):
    report = check(
        file(
            labelled(r"\boxed{2}", 1.0),
            labelled(r"\boxed{3}", 0.0),
            labelled(r"\boxed{3}", 1.0),
            labelled("x" * 500 + r"\boxed{2}", 0, gold=[1, 2.0]),
            labelled("2", 0.0),
        )
    )
    assert (report.rows, report.agree, report.skipped) == (5, 3, ()) and dict(report.status) == {"ok": 5}
    third, fourth = report.disagreements
    assert (third.row, third.label, third.ours, third.gold, third.form, third.verifier) == (3, 1.0, 0.0, "2", "boxed", "fast")
    assert (fourth.row, fourth.ours) == (4, 1.0) and fourth.response.endswith(r"xxx\boxed{2}") and len(fourth.response) == 120
    lines = report.lines()
    assert lines[0] == r"row 3: label 1, ours 0 (fast, boxed, ok): '\\boxed{3}' for gold '2'"
    assert lines[-1].startswith("3 of 5 rows agree (60.0%) in ") and lines[-1].endswith(" s: 5 ok")


def test_a_row_says_how_it_is_graded_and_else_the_command_does(file):
    half = r"\boxed{\frac{2}{4}}"  # equal to 1/2 for Math-Verify only
    report = check(
        file(
            labelled(half, 0, gold=r"\frac{1}{2}"),
            labelled(half, 1, gold=r"\frac{1}{2}", verifier="math_verify"),
            labelled(TAGGED.format(2), 0),
            labelled(TAGGED.format(2), 1, template_fn="answer_tag_reward_fn"),
            labelled("<answer>2</answer>", 0, template_fn="answer_tag_reward_fn"),
            labelled("<answer>2</answer>", 1, template_fn="answer_tag_reward_fn_for_orz"),
            labelled(r"\boxed{2}", 1, template_fn="boxed_reward_fn"),
        )
    )
    assert report.agree == report.rows == 7
    rows = file(labelled(half, 1, gold=r"\frac{1}{2}"))
    assert (check(rows).agree, check(rows, verifier="math_verify").agree) == (0, 1)
    rows = file(labelled("<answer>2</answer>", 1))
    assert [check(rows, form=form).agree for form in ("boxed", "answer_tag", "orz_tag")] == [0, 0, 1]


def test_without_labels_each_gold_is_given_as_the_answer(file):
    rows = [{"problem": "?", "answer": answer} for answer in ("025", 142.0, r"\frac{3}{4}", ["7", "seven"], r"\text{east}")]
    for form in ("boxed", "answer_tag", "orz_tag"):
        report = check(file(*rows), form=form)
        assert (report.rows, report.agree) == (5, 5)
    assert check(file({"question": "?", "solution": "3"}), answer="solution").agree == 1


def test_compat_repeats_the_graders_known_mistakes(file):
    rows = file(labelled(TAGGED.format("2</answer> or so</answer>"), 0, template_fn="answer_tag_reward_fn"))
    assert check(rows).agree == 0 and check(rows, compat=True).agree == 1


def test_rows_that_cannot_be_used_are_listed_with_their_lines(file):
    report = check(
        file(
            labelled(r"\boxed{2}", 1),
            "{not json",
            "",
            "[1, 2]",
            {"response": "4", "reward": 1},
            {"response": "4", "gold": "4"},
            labelled(4, 1),
            labelled("4", 1, template_fn="my_reward_fn"),
            labelled("4", 1, verifier="slow"),
            labelled("4", 1, gold={"a": 1}),
            labelled("4", 1, gold=[]),
        )
    )
    assert (report.rows, report.agree) == (1, 1)
    said = dict(line.split(": ", 1) for line in sorted(report.skipped))
    assert sorted(said) == sorted(f"row {number}" for number in (2, 4, 5, 6, 7, 8, 9, 10, 11))
    for number, words in {
        2: "not valid JSON",
        4: "expected an object",
        5: "no gold: it has the columns response, reward; name another with --answer",
        6: "reward is None, expected a number",
        7: "response is int, expected text",
        8: "template_fn 'my_reward_fn' is none of boxed_reward_fn, answer_tag_reward_fn",
        9: "verifier 'slow' is none of fast, math_verify",
        10: "got dict",
        11: "empty list",
    }.items():
        assert words in said[f"row {number}"]
    assert "skipped row 8: template_fn 'my_reward_fn'" in "\n".join(report.lines())


def test_a_file_with_nothing_to_grade_and_unknown_choices_are_refused(file):
    with pytest.raises(InputError, match="has no row that can be graded; row 1: no gold"):
        check(file({"question": "?"}))
    with pytest.raises(InputError, match="has no row that can be graded; it has no rows"):
        check(file())
    with pytest.raises(InputError, match="--verifier 'slow' does not exist; it can be fast, math_verify"):
        check(file(), verifier="slow")
    with pytest.raises(InputError, match="--form 'braces' does not exist; it can be boxed, answer_tag, orz_tag"):
        check(file(), form="braces")


def test_strict_ends_with_1_where_a_row_differs_and_only_there(file):
    good, bad = labelled(r"\boxed{2}", 1), labelled(r"\boxed{2}", 0)
    assert [command(file(good, good), *strict).exit_code for strict in ((), ("--strict",))] == [0, 0]
    assert [command(file(good, bad), *strict).exit_code for strict in ((), ("--strict",))] == [0, 1]
    assert "1 of 2 rows agree (50.0%)" in command(file(good, bad), "--strict").stdout


def test_json_is_for_machines(file):
    finished = command(file(labelled(r"\boxed{2}", 1), labelled(r"\boxed{3}", 1), "{"), "--json", "--strict")
    report = json.loads(finished.stdout)
    assert finished.exit_code == 1 and (report["rows"], report["agree"], report["status"]) == (2, 1, {"ok": 2})
    assert report["seconds"] >= 0 and [d["row"] for d in report["disagreements"]] == [2] and len(report["skipped"]) == 1


def test_the_grader_agrees_with_the_recorded_cases():
    report = json.loads(command(GRADED, "--json").stdout)
    assert (report["rows"], report["agree"], report["skipped"]) == (40, 40, []) and sum(report["status"].values()) == 40


def test_a_mistake_is_one_line_and_2(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-m", "fastgrpo", "reward", "check", str(tmp_path / "none.jsonl")],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2 and finished.stderr == f"fastgrpo: {tmp_path / 'none.jsonl'}: no such file\n"
