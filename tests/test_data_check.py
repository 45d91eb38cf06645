"""The report on problem sets: what it lists, for people and for machines."""

import json

import pytest
from conftest import byte_tokenizer
from source_files import jsonl

from fastgrpo.data_check import check_data
from fastgrpo.errors import InputError
from fastgrpo.templates import TEMPLATES


def check(path, rows, evaluation=(), **tokens):
    jsonl(path / "train.jsonl", rows)
    jsonl(path / "held.jsonl", evaluation)
    return check_data([str(path / "train.jsonl")], [str(path / "held.jsonl")] if evaluation else [], "problem", "answer", **tokens)


def row(problem="1 + 1?", answer="2", **more) -> dict:
    return {"problem": problem, "answer": answer, **more}


def test_a_clean_set_takes_one_line_with_its_columns_and_their_types(tmp_path):
    report = check(tmp_path, [row(level=3), row("2 + 2?", 4.0, level=None)])
    assert not report.problems_found
    (line,) = report.lines()
    assert line.endswith("train.jsonl: 2 problems; columns problem (text), answer (text or number), level (number or empty)")


def test_a_built_in_set_is_checked_like_any_other():
    report = check_data(["builtin:arithmetic@train"], ["builtin:arithmetic@heldout"], "problem", "answer")
    assert [found.problems for found in report.sets] == [4096, 512]
    assert report.sets[0].columns == {"problem": {"text": 4096}, "answer": {"text": 4096}}
    assert not report.overlaps[0].exact


def test_skipped_rows_are_listed_with_line_and_reason(tmp_path):
    report = check(tmp_path, [row(), row(answer=""), row("3?", {"a": 1})])
    assert report.problems_found and [number for number, _ in report.sets[0].skipped] == [2, 3]
    text = "\n".join(report.lines())
    assert "2 of 3 rows skipped" in text and "line 2: column 'answer' is empty" in text and "line 3: column 'answer' holds dict" in text


def test_copies_are_duplicates_and_with_other_answers_conflicts(tmp_path):
    rows = [row("a", "1"), row("b", "2"), row(" A ", "1"), row("B", "3"), row("a", 1.0), row("c", ["x", "Y"]), row("c", ["y", "x"])]
    report = check(tmp_path, rows)
    assert report.problems_found
    assert report.sets[0].duplicates == ((1, 3, 5), (6, 7)) and report.sets[0].conflicts == ((2, 4),)
    assert "  2 questions occur more than once (3 copies): rows 1 = 3 = 5, 6 = 7" in report.lines()
    assert "  1 questions occur with different answers: rows 2 = 4" in report.lines()


def test_only_the_first_examples_are_shown_and_all_are_in_the_json(tmp_path):
    report = check(tmp_path, [row(f"q{i // 5}") for i in range(25)])
    assert (
        report.lines()[1]
        == "  5 questions occur more than once (20 copies): rows 1 = 2 = 3 = ..., 6 = 7 = 8 = ..., 11 = 12 = 13 = ... and 2 more"
    )
    assert report.as_json()["sets"][0]["duplicates"][4] == (21, 22, 23, 24, 25)


def test_long_prompts_are_listed_by_characters_or_by_tokens_of_the_rendered_prompt(tmp_path):
    rows = [row("x" * 8000), row("y" * 8001)]
    assert check(tmp_path, rows).sets[0].too_long == ((2, 8001),)
    assert check(tmp_path, rows).lines()[1] == "  1 prompts are longer than 8,000 characters: row 2 (8,001)"
    around = len(TEMPLATES["qwen_math"].render("").encode())  # one token a byte
    byte_tokenizer().save_pretrained(tmp_path / "model")
    measured = {"tokenizer": str(tmp_path / "model"), "template": "qwen_math", "max_prompt_tokens": around + 2}
    report = check(tmp_path, [row("ab"), row("abc")], **measured)
    assert report.sets[0].too_long == ((2, around + 3),) and report.sets[0].limit == f"{around + 2} tokens"


def test_an_unknown_template_is_refused_with_those_that_exist(tmp_path):
    with pytest.raises(InputError, match=r"template 'r2' does not exist; there are .*qwen_math"):
        check(tmp_path, [row()], template="r2")


def test_long_answers_are_listed(tmp_path):
    report = check(tmp_path, [row("a", "1" * 400), row("b", "1" * 401), row("c", ["1", "2" * 401])])
    assert report.sets[0].long_answers == (2, 3) and report.problems_found


def test_what_training_shows_of_an_evaluation_set_is_listed_with_rows_of_both(tmp_path):
    story = "Ana has four red apples and gives two of them to Ben who eats one right away"
    report = check(tmp_path, [row("a"), row("What is 1+1?"), row(story)], [row("b"), row("what  is 1+1?"), row("Today " + story)])
    assert report.problems_found and report.overlaps[0].exact == ((2, 2),)
    head, exact, similar = report.lines()[2:]
    assert "held.jsonl in " in head and exact == "  1 of 3 questions are in it word for word: training row = row 2 = 2"
    assert similar.startswith("  1 of 3 questions share 13 words") and "3 = 3 (ana has four red" in similar


def test_sets_that_share_nothing_take_one_line_together(tmp_path):
    jsonl(tmp_path / "more.jsonl", [row("d")])
    sources = [str(tmp_path / name) for name in ("train.jsonl", "held.jsonl", "more.jsonl")]
    check(tmp_path, [row("a")], [row("b")])
    report = check_data(sources[:1], sources[1:], "problem", "answer")
    assert report.lines()[3:] == [f"{sources[0]} shows no question of {sources[1]}, {sources[2]}"] and not report.problems_found


def test_the_json_holds_every_finding(tmp_path):
    report = check(tmp_path, [row("a"), row("a"), row("")], [row("a")])
    read = json.loads(json.dumps(report.as_json()))
    assert read["problems_found"] is True and read["sets"][0]["duplicates"] == [[1, 2]] and read["sets"][0]["skipped"][0][0] == 3
    assert read["overlaps"][0]["exact"] == [[1, 1]] and "skipped_lines" not in read["sets"][0]
