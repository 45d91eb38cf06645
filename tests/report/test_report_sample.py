"""Which responses a page holds, and how their tokens are told apart."""

import base64
import gzip
import json
import math
import random

import pyarrow
import pyarrow.parquet
import pytest
from synthetic import NASTY, add_tokenizer, rollout_row, token_of_bytes, write_nasty_rollouts, write_rollouts, write_run

from fastgrpo.report.pieces import Pieces
from fastgrpo.report.rollouts import read_step
from fastgrpo.report.sample import ranked, sample_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = write_run(tmp_path_factory.mktemp("sample") / "run", 6, 64)
    add_tokenizer(made)
    return made


def rows_of(sample) -> list[dict]:
    return [row for chunk in sample.chunks for row in json.loads(gzip.decompress(base64.b64decode(chunk)))]


def test_a_small_run_is_held_whole(run):
    sample = sample_run(run, "")
    rows = rows_of(sample)
    assert (sample.shown, sample.total, sample.steps, sample.notes) == (384, 384, 6, ())
    assert [(row["step"], row["row"]) for row in rows] == [(step, row) for step in range(1, 7) for row in range(64)]


def test_a_large_one_is_held_in_part_the_same_each_time_with_every_step_and_its_extremes(run):
    sample = sample_run(run, "", responses=60)
    rows = rows_of(sample)
    assert sample == sample_run(run, "", responses=60)
    assert sample.shown == len(rows) == 60 and sample.total == 384
    for step in range(1, 7):
        held = [row for row in rows if row["step"] == step]
        everyone = [row for row in rows_of(sample_run(run, "")) if row["step"] == step]
        assert len(held) == 10
        for key in ("length", "reward"):
            assert {max(row[key] for row in held), min(row[key] for row in held)} == {
                max(row[key] for row in everyone),
                min(row[key] for row in everyone),
            }
        assert min(row["logprob"] for row in held) == min(row["logprob"] for row in everyone)
        assert {row["truncated"] for row in held} == {row["truncated"] for row in everyone}


def test_no_more_bytes_than_allowed_and_still_every_step(run):
    sample = sample_run(run, "", size=30_000)
    assert sum(map(len, sample.chunks)) <= 30_000 and sample.shown < 384 and {row["step"] for row in rows_of(sample)} == set(range(1, 7))
    tiny = sample_run(run, "", size=4000)
    assert 0 < tiny.shown < 6 and sum(map(len, tiny.chunks)) <= 4000 and tiny.steps == tiny.shown


def test_more_steps_than_responses(run):
    sample = sample_run(run, "", responses=3)
    assert sample.shown == 3 and sample.total == 384


def test_what_graders_choked_on_is_held(tmp_path):
    write_nasty_rollouts(tmp_path / "step_000001.parquet", 1)
    found = read_step(1, tmp_path / "step_000001.parquet")
    assert 4 in ranked(found)[:6] and sorted(ranked(found)) == list(range(8))


def test_numbers_that_are_not_finite_stay_in_their_own_response(tmp_path):
    run = write_run(tmp_path / "run", 1)
    draw = random.Random(0)
    rows = [rollout_row(1, i, "ab", 1.0, draw) for i in range(3)]
    rows[1] |= {"logprobs": [math.nan, -math.inf], "rewards": '{"mine": NaN}', "advantage": math.nan}
    expected = [sum(row["logprobs"]) / 2 for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), run / "rollouts" / "step_000001.parquet")
    found = rows_of(sample_run(run, ""))
    assert [row["logprob"] for row in found] == pytest.approx([expected[0], -20.0, expected[2]], abs=1e-3)
    assert found[1]["parts"] == {"mine": None} and found[1]["advantage"] is None


def test_a_file_that_is_not_whole_is_left_out_and_named(tmp_path):
    run = write_run(tmp_path / "run", 2, 8)
    path = run / "rollouts" / "step_000002.parquet"
    path.write_bytes(path.read_bytes()[:500])
    sample = sample_run(run, "")
    assert sample.shown == sample.total == 8 and "step_000002.parquet: not whole" in sample.notes[0]


def test_without_rollouts_or_tokenizer_it_says_so(tmp_path):
    run = write_run(tmp_path / "run", 1)
    assert sample_run(run, "").notes == ("no rollouts were written yet",)
    write_rollouts(run / "rollouts" / "step_000001.parquet", 1, 8)
    sample = sample_run(run, "")
    assert "no checkpoint" in sample.notes[0] and all(row["lengths"] is None for row in rows_of(sample))


@pytest.mark.parametrize("text", ["plain", *NASTY, "\U0001f600", "caf\u00e9"])
def test_pieces_add_up_to_the_text_in_units_of_javascript(run, text):
    ids = [token_of_bytes()[byte] for byte in text.encode()]
    lengths = Pieces(run, "").lengths(ids, text)
    assert len(lengths) == len(ids) and sum(lengths) == len(text.encode("utf-16-le")) // 2


def test_tokens_that_are_not_the_text_are_not_shaded(run):
    assert Pieces(run, "").lengths([1, 2], "something else") is None


def test_a_special_token_at_the_end_has_no_text(run):
    ids = [token_of_bytes()[byte] for byte in b"ab"]
    assert Pieces(run, "").lengths([*ids, 256], "ab") == [1, 1, 0]


def test_a_response_cut_inside_a_character_is_still_told_apart(run):
    ids = [token_of_bytes()[byte] for byte in "a\U0001f600".encode()[:3]]
    lengths = Pieces(run, "").lengths(ids, "a\ufffd")
    assert len(lengths) == 3 and sum(lengths) == 2


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path):
    run = write_run(tmp_path / "run", 1)
    (run / "checkpoints" / "step_1").mkdir()
    (run / "checkpoints" / "step_1" / "tokenizer.json").write_text("{")
    assert "cannot be used" in Pieces(run, "").why_not
