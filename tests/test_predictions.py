"""What an evaluation leaves on disk: every response as soon as it ends, and a parquet file that is whole or absent."""

import json

import pyarrow.parquet
import pytest

from fastgrpo.accuracy import Prediction
from fastgrpo.predictions import Journal, write_predictions
from fastgrpo.types import Completion, Prompt

PROMPTS = [Prompt("a", (1,), "1", "one?"), Prompt("b", (2,), "2", "two?")]
FIRST, SECOND = Completion("line\nbreak \u2028 é \\boxed{1}", 7, "stop"), Completion("", 3000, "length")
ROW = Prediction("set", "a", 0, "one?", [1, "one"], "text \u2028", 3, "stop", True, "ok", True)


def test_a_response_is_known_after_a_restart(tmp_path):
    path = tmp_path / "set.responses.jsonl"
    with Journal(path, PROMPTS) as journal:
        assert journal.known == {}
        journal.write(("a", 0), FIRST)
        assert Journal(path, PROMPTS).known == {("a", 0): FIRST}  # already now: the writer may be killed
        journal.write(("b", 3), SECOND)
    with Journal(path, PROMPTS) as journal:
        assert journal.known == {("a", 0): FIRST, ("b", 3): SECOND}


def test_a_torn_last_line_is_cut_and_written_again(tmp_path):
    path = tmp_path / "set.responses.jsonl"
    with Journal(path, PROMPTS) as journal:
        journal.write(("a", 0), FIRST)
        whole = path.read_bytes()
        journal.write(("b", 0), SECOND)
    written = path.read_bytes()
    for length in range(len(whole), len(written)):  # wherever the kill came
        path.write_bytes(written[:length])
        with Journal(path, PROMPTS) as journal:
            assert journal.known == {("a", 0): FIRST} and path.read_bytes() == whole
            journal.write(("b", 0), SECOND)
        assert path.read_bytes() == written


def test_responses_to_a_problem_that_changed_are_not_used(tmp_path):
    path = tmp_path / "set.responses.jsonl"
    with Journal(path, PROMPTS) as journal:
        journal.write(("a", 0), FIRST)
        journal.write(("b", 0), SECOND)
    edited = [Prompt("a", (1,), "1", "one??"), PROMPTS[1]]
    with Journal(path, edited) as journal:
        assert journal.known == {("b", 0): SECOND}
        journal.write(("a", 0), SECOND)
    assert Journal(path, edited).known == {("a", 0): SECOND, ("b", 0): SECOND}
    assert Journal(path, PROMPTS[:1]).known == {("a", 0): FIRST}


def test_a_parquet_file_holds_every_prediction_with_its_way(tmp_path):
    path = tmp_path / "set.parquet"
    write_predictions(path, {"sampled": [ROW, ROW], "greedy": [ROW]})
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [row["way"] for row in rows] == ["sampled", "sampled", "greedy"]
    assert rows[0]["text"] == ROW.text and json.loads(rows[0]["answer"]) == [1, "one"]
    assert (rows[0]["id"], rows[0]["sample"], rows[0]["right"], rows[0]["grading"]) == ("a", 0, True, "ok")
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.parquet"]


def test_a_parquet_file_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "set.parquet"
    write_predictions(path, {"greedy": [ROW]})
    before = path.read_bytes()

    def torn(table, where):
        where.write_bytes(b"PAR1")
        raise OSError("disk full")

    monkeypatch.setattr(pyarrow.parquet, "write_table", torn)
    with pytest.raises(OSError, match="disk full"):
        write_predictions(path, {"greedy": [ROW, ROW]})
    assert path.read_bytes() == before
