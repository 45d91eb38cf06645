"""Which rows make a problem, what is said of the others, and the built-in sets."""

import json
import subprocess
import sys

import pytest
from source_files import FORMATS, jsonl, load, parquet, refusal

from fastgrpo.data import BUILTIN_SIZES, ProblemSet, SkippedRow, row_number

ROWS = [
    {"problem": "1 + 1? {x}", "answer": "2", "level": 3},
    {"problem": "größer \\frac{1}{2}\n?", "answer": "025", "level": 4},
]


def reasons(found: ProblemSet) -> dict[int, str]:
    return {row.number: row.reason for row in found.skipped}


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_every_format_gives_the_rows_in_order_with_all_their_columns(write, name, tmp_path):
    write(tmp_path / name, ROWS)
    found = load(tmp_path / name)
    assert [(p.problem, p.answer) for p in found.problems] == [(row["problem"], row["answer"]) for row in ROWS]
    assert [dict(p.columns) for p in found.problems] == ROWS
    assert [p.id for p in found.problems] == [f"{name}-1", f"{name}-2"]
    assert [row_number(p) for p in found.problems] == [1, 2]
    assert (found.source, found.skipped, found.skipped_lines()) == (str(tmp_path / name), (), [])


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_golds_may_be_numbers_or_lists(write, name, tmp_path):
    for golds in ([142.0, -3.5], [7, 0], [["1", "2"], ["3"]]):
        path = tmp_path / f"{type(golds[0]).__name__}-{name}"
        write(path, [{"problem": "?", "answer": gold} for gold in golds])
        assert [problem.answer for problem in load(path).problems] == golds
        assert [type(problem.answer) for problem in load(path).problems] == [type(gold) for gold in golds]


def test_columns_are_the_ones_named(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"prompt": "q", "solution": "s", "problem": "wrong", "answer": "wrong"}])
    (problem,) = load(tmp_path / "a.jsonl", "prompt", "solution").problems
    assert (problem.problem, problem.answer) == ("q", "s")


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_a_column_that_no_row_has_is_named_with_those_present(write, name, tmp_path):
    write(tmp_path / name, ROWS)
    line = refusal(tmp_path / name, answer="solution")
    assert "row 1" in line and "no column 'solution'" in line and "it has answer, level, problem" in line and "data.answer=COLUMN" in line


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"problem": "?"}, "no column 'answer'"),
        ({"answer": "1"}, "no column 'problem'"),
        ({"problem": "?", "answer": None}, "column 'answer' is empty"),
        ({"problem": "?", "answer": " \n"}, "column 'answer' is empty"),
        ({"problem": "?", "answer": []}, "column 'answer' is empty"),
        ({"problem": "?", "answer": ["1", ""]}, "column 'answer' is empty"),
        ({"problem": None, "answer": "1"}, "column 'problem' is empty"),
        ({"problem": "", "answer": "1"}, "column 'problem' is empty"),
        ({"problem": "  ", "answer": "1"}, "column 'problem' is empty"),
        ({"problem": 12, "answer": "1"}, "column 'problem' holds int, expected text"),
        ({"problem": ["?"], "answer": "1"}, "column 'problem' holds list, expected text"),
        ({"problem": "?", "answer": True}, "column 'answer' holds bool, expected text, a number or a list"),
        ({"problem": "?", "answer": {"value": 1}}, "column 'answer' holds dict, expected text, a number or a list"),
        ({"problem": "?", "answer": [{"value": 1}]}, "column 'answer' holds a list with dict"),
        ({"problem": "?", "answer": [["1"]]}, "column 'answer' holds a list with list"),
        ({"problem": "?", "answer": float("nan")}, "column 'answer' holds nan, expected a finite number"),
        ({"problem": "?", "answer": [float("inf")]}, "column 'answer' holds inf, expected a finite number"),
        ({"problem": "a\0b", "answer": "1"}, "column 'problem' holds a NUL character"),
        ({"problem": "?", "answer": "1\0"}, "column 'answer' holds a NUL character"),
        ({"problem": "ab\ud800", "answer": "1"}, "column 'problem' holds half of a surrogate pair at character 3"),
    ],
)
def test_a_row_without_a_usable_question_and_answer_is_skipped_and_listed(row, reason, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (ROWS[0], row, ROWS[1])))
    found = load(path)
    assert [p.id for p in found.problems] == ["a.jsonl-1", "a.jsonl-3"]
    assert list(reasons(found)) == [2] and reasons(found)[2].startswith(reason)


def test_an_answer_of_zero_is_not_empty(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"problem": "?", "answer": 0}, {"problem": "?", "answer": 0.0}])
    assert [problem.answer for problem in load(tmp_path / "a.jsonl").problems] == [0, 0.0]


def test_a_question_of_a_megabyte_and_a_repeated_one_are_kept(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"problem": "x " * 2**19, "answer": "1"}, ROWS[0], ROWS[0]])
    assert [len(p.problem) for p in load(tmp_path / "a.jsonl").problems] == [2**20, 10, 10]


def test_null_cells_of_a_parquet_file_are_skipped_too(tmp_path):
    parquet(tmp_path / "a.parquet", [ROWS[0], {**ROWS[0], "answer": None}, {**ROWS[0], "problem": None}])
    found = load(tmp_path / "a.parquet")
    assert [row_number(p) for p in found.problems] == [1] and list(reasons(found)) == [2, 3]


def test_a_set_without_a_usable_row_is_refused_with_the_first_reasons(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"problem": "?", "answer": ""}\n\nnonsense\n{"problem": 1, "answer": "1"}\n[]\n{"answer": 1}\n')
    line = refusal(tmp_path / "a.jsonl")
    assert "none of its 5 rows can be used: line 1: column 'answer' is empty" in line
    assert "line 3: not valid JSON" in line and "line 4: column 'problem' holds int" in line and line.endswith("and 2 more rows")


def test_a_column_is_not_called_missing_when_no_row_could_be_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("nonsense\n")
    assert "none of its 1 rows can be used: line 1: not valid JSON" in refusal(tmp_path / "a.jsonl")


def test_skipped_rows_in_sequence_share_a_line():
    skipped = tuple(SkippedRow(number, reason) for reason, numbers in (("odd", (1, 2, 3, 7)), ("even", (8, 12))) for number in numbers)
    found = ProblemSet("a.parquet", (), skipped)
    assert found.skipped_lines(2) == ["a.parquet: 6 of 6 rows skipped", "  rows 1 to 3: odd", "  row 7: odd", "  and 2 more rows"]
    assert found.skipped_lines()[3:] == ["  row 8: even", "  row 12: even"]


@pytest.mark.parametrize(
    "source", ["builtin:algebra@train", "builtin:arithmetic", "builtin:arithmetic@test", "builtin:arithmetic-mixed@train"]
)
def test_an_unknown_built_in_set_is_refused_with_those_that_exist(source):
    line = refusal(source)
    assert source in line and "builtin:arithmetic[-easy|-hard]@train|heldout" in line


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_built_in_sets_have_their_level_and_size(split):
    easy, hard, mixed = (load(f"builtin:arithmetic{level}@{split}").problems for level in ("-easy", "-hard", ""))
    assert len(easy) == len(hard) == len(mixed) == BUILTIN_SIZES[split]
    assert sum(len(p.problem) for p in easy) < sum(len(p.problem) for p in mixed) < sum(len(p.problem) for p in hard)


def test_lines_are_read_without_loading_any_heavy_library(tmp_path):
    jsonl(tmp_path / "a.jsonl", ROWS)
    heavy = "{'torch', 'transformers', 'datasets', 'pyarrow', 'pandas', 'numpy'}"
    code = f"from source_files import load; import sys; load({str(tmp_path / 'a.jsonl')!r}); sys.exit(' '.join({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True)
    assert done.stderr.strip() == ""
