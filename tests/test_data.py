"""Problem sets from every kind of source, what is said of bad ones, and the order in which prompts are drawn."""

import json

import pytest
from conftest import byte_tokenizer

from fastgrpo.data import BUILTIN_SIZES, draw_prompts, load_problems, render_prompts
from fastgrpo.errors import InputError
from fastgrpo.templates import TEMPLATES
from fastgrpo.types import Problem, Prompt

ROWS = [
    {"problem": "1 + 1? {x}", "answer": "2", "level": 3},
    {"problem": "größer \\frac{1}{2}\n?", "answer": "025", "level": 4},
]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def saved(path, rows):
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(path)


FORMATS = [(jsonl, "set.jsonl"), (parquet, "set.parquet"), (saved, "set")]


def load(path, problem="problem", answer="answer"):
    return load_problems(str(path), problem, answer)


def refusal(path, problem="problem", answer="answer") -> str:
    """The one line that is said of a source."""
    with pytest.raises(InputError) as caught:
        load(path, problem, answer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_every_format_gives_the_rows_in_order(write, name, tmp_path):
    write(tmp_path / name, ROWS)
    first, second = load(tmp_path / name)
    assert (first.problem, first.answer) == ("1 + 1? {x}", "2")
    assert (second.problem, second.answer) == ("größer \\frac{1}{2}\n?", "025")
    assert first.id != second.id


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_golds_may_be_numbers_or_lists(write, name, tmp_path):
    for golds in ([142.0, -3.5], [7, 0], [["1", "2"], ["3"]]):
        path = tmp_path / f"{type(golds[0]).__name__}-{name}"
        write(path, [{"problem": "?", "answer": gold} for gold in golds])
        assert [problem.answer for problem in load(path)] == golds
        assert [type(problem.answer) for problem in load(path)] == [type(gold) for gold in golds]


def test_columns_are_the_ones_named(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"prompt": "q", "solution": "s", "problem": "wrong", "answer": "wrong"}])
    (problem,) = load(tmp_path / "a.jsonl", "prompt", "solution")
    assert (problem.problem, problem.answer) == ("q", "s")


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_a_missing_column_is_named_with_those_present(write, name, tmp_path):
    write(tmp_path / name, ROWS)
    line = refusal(tmp_path / name, answer="solution")
    assert "row 1" in line and "no column 'solution'" in line and "it has answer, level, problem" in line and "data.answer=COLUMN" in line


@pytest.mark.parametrize("gold", ["", None, []])
def test_an_empty_answer_is_refused_with_its_row(gold, tmp_path):
    jsonl(tmp_path / "a.jsonl", [*ROWS, {"problem": "?", "answer": gold}])
    assert "row 3: column 'answer' is empty" in refusal(tmp_path / "a.jsonl")


def test_an_answer_of_zero_is_not_empty(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"problem": "?", "answer": 0}, {"problem": "?", "answer": 0.0}])
    assert [problem.answer for problem in load(tmp_path / "a.jsonl")] == [0, 0.0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"problem": 12, "answer": "1"}, "column 'problem' holds int, expected text"),
        ({"problem": ["?"], "answer": "1"}, "column 'problem' holds list, expected text"),
        ({"problem": "?", "answer": {"value": 1}}, "column 'answer' holds dict, expected text, a number or a list"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_row(row, words, tmp_path):
    jsonl(tmp_path / "a.jsonl", [*ROWS, row])
    assert f"row 3: {words}" in refusal(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"problem": "?"', "a.jsonl:3: not valid JSON"),
        (b"\xff\xfe", "a.jsonl:3: not valid JSON"),
        (b'["?", "1"]', "a.jsonl:3: expected an object"),
        (b'"text"', "a.jsonl:3: expected an object"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(line, words, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json.dumps(ROWS[0]).encode() + b"\n\n" + line + b"\n")
    assert words in refusal(tmp_path / "a.jsonl")


def test_a_line_separator_inside_a_question_ends_no_row(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"problem": "a\u2028b\u0085c", "answer": "1"}])
    assert load(tmp_path / "a.jsonl")[0].problem == "a\u2028b\u0085c"


@pytest.mark.parametrize(("write", "name"), [(jsonl, "set.jsonl"), (parquet, "set.parquet")])
def test_a_set_without_rows_is_refused(write, name, tmp_path):
    write(tmp_path / name, [])
    assert "has no rows" in refusal(tmp_path / name)


def test_a_directory_of_several_splits_is_refused_with_their_names(tmp_path):
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "both")
    assert "holds several splits (train, test)" in refusal(tmp_path / "both")
    assert len(load(tmp_path / "both" / "train")) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.jsonl", "no such file"),
        ("missing.parquet", "no such file"),
        ("missing", "no such file exists; it can be builtin:arithmetic"),
        ("text.txt", "text.txt is not a problem set; it can be builtin:arithmetic"),
        ("bad.parquet", "could not be read"),
        ("folder", "could not be loaded"),
    ],
)
def test_what_is_no_problem_set_is_refused(name, words, tmp_path):
    (tmp_path / "text.txt").write_text("?")
    (tmp_path / "bad.parquet").write_text("?")
    (tmp_path / "folder").mkdir()
    line = refusal(tmp_path / name)
    assert words in line and str(tmp_path / name) in line


@pytest.mark.parametrize(
    "source", ["builtin:algebra@train", "builtin:arithmetic", "builtin:arithmetic@test", "builtin:arithmetic-mixed@train"]
)
def test_an_unknown_built_in_set_is_refused_with_those_that_exist(source):
    line = refusal(source)
    assert source in line and "builtin:arithmetic[-easy|-hard]@train|heldout" in line


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_built_in_sets_have_their_level_and_size(split):
    easy, hard, mixed = (load(f"builtin:arithmetic{level}@{split}") for level in ("-easy", "-hard", ""))
    assert len(easy) == len(hard) == len(mixed) == BUILTIN_SIZES[split]
    assert sum(len(p.problem) for p in easy) < sum(len(p.problem) for p in mixed) < sum(len(p.problem) for p in hard)


def test_prompts_are_the_rendered_bytes_and_nothing_else():
    problem = Problem("a", "2 + {3}?", ["5", "five"])
    tokenizer = byte_tokenizer()
    (prompt,), dropped = render_prompts([problem], TEMPLATES["r1"], tokenizer, 1000)
    assert tokenizer.decode(prompt.token_ids) == TEMPLATES["r1"].render("2 + {3}?")
    assert (prompt.id, prompt.answer, prompt.problem, dropped) == ("a", ["5", "five"], "2 + {3}?", 0)


def test_no_beginning_of_sequence_is_added():
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)])
    assert tokenizer("ab")["input_ids"][0] == 256  # the tokenizer would add one
    (prompt,), _ = render_prompts([Problem("a", "ab", "1")], TEMPLATES["no"], tokenizer, 10)
    assert prompt.token_ids == tuple(tokenizer("ab", add_special_tokens=False)["input_ids"])
    assert 256 not in prompt.token_ids


def test_longer_prompts_are_dropped_and_counted():
    problems = [Problem(str(n), "x" * n, "1") for n in (5, 6, 4, 7, 5)]
    prompts, dropped = render_prompts(problems, TEMPLATES["no"], byte_tokenizer(), 5)
    assert ([prompt.id for prompt in prompts], dropped) == (["5", "4", "5"], 2)


def test_it_is_an_error_when_every_prompt_is_too_long():
    problems = [Problem(str(n), "x" * n, "1") for n in (9, 7)]
    with pytest.raises(InputError, match=r"max_prompt_tokens=6; the shortest has 7 tokens"):
        render_prompts(problems, TEMPLATES["no"], byte_tokenizer(), 6)


PROMPTS = [Prompt(str(i), (i,), "1") for i in range(10)]


def drawn(count: int, steps: range, seed: int = 0) -> list[str]:
    return [prompt.id for step in steps for prompt in draw_prompts(PROMPTS, count, step, seed)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10, 25])
def test_each_epoch_is_a_permutation_of_all_prompts(count):
    ids = drawn(count, range(1, 41))
    epochs = [ids[start : start + 10] for start in range(0, len(ids) - 9, 10)]
    assert all(sorted(epoch, key=int) == [str(i) for i in range(10)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)  # each its own


def test_a_step_draws_the_same_whatever_was_drawn_before():
    whole = drawn(4, range(1, 9))
    assert drawn(4, range(6, 7)) == whole[20:24]
    assert drawn(8, range(1, 5)) == whole  # larger steps walk the same order


def test_another_seed_draws_another_order():
    assert drawn(10, range(1, 2), seed=1) != drawn(10, range(1, 2), seed=2)
