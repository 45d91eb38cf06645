"""Files that are damaged, written elsewhere, or no problem set at all."""

import json

import pytest
from source_files import array, jsonl, load, parquet, refusal, saved

from fastgrpo.data import row_number

ROW = {"problem": "1 + 1?", "answer": "2"}
LINE = json.dumps(ROW).encode()


def numbered(count: int) -> list[dict]:
    return [{"problem": f"What is {i}?", "answer": str(i)} for i in range(1, count + 1)]


def rows_and_reasons(path) -> tuple[list[int], dict[int, str]]:
    found = load(path)
    return [row_number(p) for p in found.problems], {row.number: row.reason for row in found.skipped}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"problem": "?"', "not valid JSON"),
        (b'{"problem": "?", "answer": "1"} {"problem": "?"}', "not valid JSON"),
        (b'{"problem": "\0", "answer": "1"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"problem": "?", "answer": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"problem": "gr\xf6\xdfer", "answer": "1"}', "not UTF-8 text: byte 16 is 0xf6"),
        (b'{"problem": "\xed\xa0\x80", "answer": "1"}', "not UTF-8 text"),
        (b"\xff\xfe", "not UTF-8 text: byte 1 is 0xff"),
        (b'["?", "1"]', "expected an object"),
        (b'"text"', "expected an object"),
        (b"null", "expected an object"),
    ],
)
def test_a_damaged_line_is_listed_with_its_number_and_the_others_kept(line, reason, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINE + b"\n\n" + line + b"\n" + LINE)
    rows, reasons = rows_and_reasons(tmp_path / "a.jsonl")
    assert rows == [1, 4] and list(reasons) == [3] and reasons[3].startswith(reason)


def test_a_byte_order_mark_and_other_line_ends_are_no_damage(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + LINE + b"\r\n" + LINE + b"\r\n")
    assert rows_and_reasons(tmp_path / "a.jsonl") == ([1, 2], {})
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[" + LINE + b",\r\n" + LINE + b"]\r\n")
    assert rows_and_reasons(tmp_path / "a.json") == ([1, 2], {})


def test_a_line_separator_inside_a_question_ends_no_row(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"problem": "a\u2028b\u2029c\u0085d", "answer": "1"}])
    assert [p.problem for p in load(tmp_path / "a.jsonl").problems] == ["a\u2028b\u2029c\u0085d"]


def test_an_entry_of_an_array_that_is_no_object_is_skipped(tmp_path):
    array(tmp_path / "a.json", [ROW, 7, ROW])
    rows, reasons = rows_and_reasons(tmp_path / "a.json")
    assert rows == [1, 3] and "found int" in reasons[2]


@pytest.mark.parametrize(
    ("text", "words"), [('{"problem": "?"}', "holds dict"), ("{}\n{}", "belongs into a .jsonl file"), ("\xff", "JSON")]
)
def test_a_json_file_that_is_no_array_is_refused(text, words, tmp_path):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    assert words in refusal(tmp_path / "a.json")


@pytest.mark.parametrize(("write", "name"), [(jsonl, "set.jsonl"), (array, "set.json"), (parquet, "set.parquet")])
def test_a_set_without_rows_is_refused(write, name, tmp_path):
    write(tmp_path / name, [])
    assert "has no rows" in refusal(tmp_path / name)


def damage(path, group: int) -> None:
    """Overwrites the first page of the question column in one row group."""
    import pyarrow.parquet

    start = pyarrow.parquet.ParquetFile(path).metadata.row_group(group).column(0).data_page_offset + 40
    content = bytearray(path.read_bytes())
    content[start : start + 16] = bytes(255 - byte for byte in content[start : start + 16])
    path.write_bytes(content)


def test_a_damaged_page_costs_its_row_group_alone(tmp_path):
    path = tmp_path / "a.parquet"
    parquet(path, numbered(50), row_group_size=20, write_page_checksum=True)
    damage(path, 1)
    rows, reasons = rows_and_reasons(path)
    assert rows == [*range(1, 21), *range(41, 51)] and list(reasons) == list(range(21, 41))
    assert load(path).problems[20].problem == "What is 41?"
    head, line = load(path).skipped_lines()
    assert head.endswith("20 of 50 rows skipped") and line.startswith("  rows 21 to 40: row group 2 of the parquet file is damaged")


def test_text_that_changed_in_a_parquet_file_is_found_by_the_checksum_of_its_page(tmp_path):
    path = tmp_path / "a.parquet"
    parquet(path, numbered(50), row_group_size=20, write_page_checksum=True, compression="none")
    path.write_bytes(path.read_bytes().replace(b"What is 30?", b"What is 99?"))
    assert list(rows_and_reasons(path)[1]) == list(range(21, 41))


def test_a_parquet_file_of_damaged_pages_only_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    parquet(path, numbered(10), write_page_checksum=True)
    damage(path, 0)
    assert "none of its 10 rows can be used: rows 1 to 10: row group 1" in refusal(path)


def test_text_in_a_parquet_file_that_is_not_utf_8_costs_its_row_alone(tmp_path):
    import pyarrow
    import pyarrow.parquet

    questions = pyarrow.array([b"one", b"gr\xf6\xdfer", b"three"]).cast(pyarrow.string(), safe=False).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"problem": questions, "answer": ["1", "2", "3"]}), tmp_path / "a.parquet")
    rows, reasons = rows_and_reasons(tmp_path / "a.parquet")
    assert rows == [1, 3] and reasons == {2: "not UTF-8 text: byte 3 is 0xf6"}


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_a_parquet_file_that_was_cut_off_is_refused(keep, tmp_path):
    parquet(tmp_path / "whole.parquet", numbered(50))
    (tmp_path / "a.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:keep])
    assert "a.parquet could not be read" in refusal(tmp_path / "a.parquet")


def test_a_parquet_file_whose_row_counts_disagree_is_refused(tmp_path):
    parquet(tmp_path / "a.parquet", numbered(1234), row_group_size=617)
    content = (tmp_path / "a.parquet").read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    total, more = b"\xa4\x13", b"\xa6\x13"  # 1234 and 1235 as zigzag varints: 2468 = 0x24 + (0x13 << 7)
    (tmp_path / "a.parquet").write_bytes(content[:footer] + content[footer:].replace(total, more, 1))
    assert "a.parquet could not be read: its row counts disagree" in refusal(tmp_path / "a.parquet")


def test_a_saved_directory_whose_data_was_cut_off_is_refused(tmp_path):
    saved(tmp_path / "set", numbered(50))
    (data,) = (tmp_path / "set").glob("*.arrow")
    data.write_bytes(data.read_bytes()[:100])
    assert "set could not be loaded" in refusal(tmp_path / "set")


def test_a_directory_of_several_splits_is_refused_with_their_names(tmp_path):
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list([ROW]), "test": Dataset.from_list([ROW])}).save_to_disk(tmp_path / "both")
    assert "holds several splits (train, test)" in refusal(tmp_path / "both")
    assert len(load(tmp_path / "both" / "train").problems) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.jsonl", "no such file"),
        ("missing.json", "no such file"),
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
    ("source", "asked"),
    [("org/name@test", ("org/name", None, "test")), ("org/name:main@train[:10]", ("org/name", "main", "train[:10]"))],
)
def test_a_split_on_the_hub_is_asked_for_with_its_configuration(source, asked, monkeypatch):
    import datasets

    seen = []

    def load_dataset(path, name=None, split=None):
        seen.append((path, name, split))
        return datasets.Dataset.from_list([ROW])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [p.answer for p in load(source).problems] == ["2"] and seen == [asked]


def test_a_set_that_the_hub_does_not_give_is_refused(monkeypatch):
    import datasets

    def load_dataset(path, name=None, split=None):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert refusal("org/name@train") == "org/name@train could not be loaded: no route"
