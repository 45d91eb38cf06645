"""What texts are read from a source, in which parts, and what is said of rows and sources that cannot be used."""

import json
import re

import pytest

from fastgrpo.config_pretrain import TextConfig
from fastgrpo.errors import InputError
from fastgrpo.texts import load_texts

DATA = TextConfig(train=("unused",), separator="\n")


def rows(path, *given) -> str:
    path.write_text("\n".join(map(json.dumps, given)))
    return str(path)


def test_a_plain_file_is_one_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffEins.\n\nZwei: größer\n".encode())
    assert load_texts(str(tmp_path / "a.txt"), DATA).texts == (("Eins.\n\nZwei: größer\n",),)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_of_whole_texts_comes_before_question_and_answer(tmp_path, kind):
    given = [{"text": "one", "problem": "1?", "answer": "1"}, {"text": "two", "problem": "2?", "answer": "2"}]
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        rows(path, *given)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(given), path)
    found = load_texts(str(path), DATA)
    assert found.texts == (("one",), ("two",)) and found.lines() == [f"{path}: 2 texts, column text"]
    asked = load_texts(str(path), DATA.model_copy(update={"text": "none such"}))
    assert asked.texts == (("1?\n", "1"), ("2?\n", "2")) and asked.made_of == "columns problem and answer"


def test_rows_that_cannot_be_used_are_listed(tmp_path):
    path = rows(tmp_path / "a.jsonl", {"text": "one"}, {"text": " "}, {"other": 1}, {"text": 3}, {"text": "\0"}, {"text": "two"})
    found = load_texts(path, DATA)
    assert found.texts == (("one",), ("two",)) and [row.number for row in found.skipped] == [2, 3, 4, 5]
    assert found.lines()[1].endswith("4 of 6 rows skipped")
    path = rows(tmp_path / "b.jsonl", {"problem": "a?", "answer": ["1", "2"]}, {"problem": "b?", "answer": 7}, {"problem": "", "answer": 7})
    found = load_texts(path, DATA)
    assert found.texts == (("b?\n", "7"),) and [row.number for row in found.skipped] == [1, 3]


def test_built_in_sets():
    worked = load_texts("builtin:worked@heldout", DATA).texts
    assert len(worked) == 512 and all(question.endswith("\n") and "\\boxed{" in answer for question, answer in worked)
    assert load_texts("builtin:arithmetic@heldout", DATA).texts[0][1].isdigit()
    assert not {question for question, _ in worked} & {question for question, _ in load_texts("builtin:worked@train", DATA).texts}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "none.txt: no such file"),
        ("a.txt", b" \n", "a.txt holds no text"),
        ("a.txt", b"a\xff", "a.txt is not UTF-8 text: byte 2 is 0xff"),
        ("a.jsonl", b'{"q": 1}', r"no column 'problem'; it has q. .*data.text=COLUMN where a column holds whole texts"),
        ("a.jsonl", b'{"text": ""}', "none of its 1 rows can be used: column 'text' holds nothing, expected text"),
        ("math12", None, "math12 is not a problem set; did you mean math12k"),
    ],
)
def test_a_source_that_cannot_be_used_is_told_in_one_line(tmp_path, monkeypatch, name, content, words):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as told:
        load_texts(name, DATA)
    assert re.search(words, str(told.value)) and "\n" not in str(told.value)


def test_a_fingerprint_knows_texts_their_parts_and_their_order(tmp_path):
    prints = set()
    for given in ([{"text": "ab"}, {"text": "c"}], [{"text": "a"}, {"text": "bc"}], [{"text": "c"}, {"text": "ab"}]):
        prints.add(load_texts(rows(tmp_path / "a.jsonl", *given), DATA).fingerprint())
    prints.add(load_texts(rows(tmp_path / "a.jsonl", {"problem": "a", "answer": "b"}, {"problem": "c", "answer": "d"}), DATA).fingerprint())
    assert len(prints) == 4
