"""Pages of rollouts from the files: every row that passes comes exactly once, in order, whatever the filter."""

import itertools

import pytest
from synthetic import add_tokenizer, write_nasty_rollouts, write_run

from fastgrpo.errors import InputError
from fastgrpo.report import paging
from fastgrpo.report.paging import page
from fastgrpo.report.pieces import Pieces


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = write_run(tmp_path_factory.mktemp("paging") / "run", 3, 80)
    add_tokenizer(made)
    write_nasty_rollouts(made / "rollouts" / "step_000004.parquet", 4)
    return made


def everything(run, **asked) -> list[dict]:
    """Page after page; no page is larger than it may be."""
    rows, cursor, pieces = [], "", Pieces(run, "")
    while cursor is not None:
        found = page(run, pieces, asked | {"cursor": cursor})
        assert len(found["rows"]) <= paging.PAGE and (found["rows"] or found["next"] is None or paging.MOMENT == 0)
        rows += found["rows"]
        cursor = found["next"]
    return rows


def test_pages_together_are_all_rows_newest_step_first(run):
    assert [(row["step"], row["row"]) for row in everything(run)] == [
        *((4, row) for row in range(8)),
        *((step, row) for step in (3, 2, 1) for row in range(80)),
    ]


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ({"first": "2", "last": "3"}, lambda row: 2 <= row["step"] <= 3),
        ({"reward": "positive"}, lambda row: row["reward"] is not None and row["reward"] > 0),
        ({"reward": "zero", "truncated": "no"}, lambda row: row["reward"] == 0 and not row["truncated"]),
        ({"reward": "negative"}, lambda row: row["reward"] is not None and row["reward"] < 0),
        ({"reward": "none"}, lambda row: row["reward"] is None),
        ({"truncated": "yes"}, lambda row: row["truncated"]),
        ({"grading": "odd"}, lambda row: row["grading"] != "ok"),
        ({"shortest": "90", "longest": "120"}, lambda row: 90 <= row["length"] <= 120),
        ({"q": "BOXED{42}"}, lambda row: "boxed{42}" in row["text"].lower()),
        ({"q": "set-3"}, lambda row: row["id"] == "set-3"),
        ({"q": "\U0001f600"}, lambda row: "\U0001f600" in row["text"]),
        ({"q": "no text holds this"}, lambda row: False),
    ],
)
def test_a_filter_finds_what_passes_and_nothing_else(run, asked, passes):
    assert everything(run, **asked) == [row for row in everything(run) if passes(row)]


def test_a_search_that_takes_long_gives_what_it_has_and_goes_on(run, monkeypatch):
    monkeypatch.setattr(paging, "MOMENT", 0.0)
    first = page(run, Pieces(run, ""), {"q": "no text holds this"})
    assert first == {"rows": [], "next": "3.-1", "matches": None}
    assert len(everything(run)) == 248


def test_a_page_ends_where_its_rows_end(run, monkeypatch):
    for size in (1, 79, 80, 81, 248):
        monkeypatch.setattr(paging, "PAGE", size)
        found = page(run, Pieces(run, ""), {})
        assert len(found["rows"]) == size and (found["next"] is None) == (size == 248)
    places = [(row["step"], row["row"]) for row in everything(run)]
    assert len(set(places)) == len(places) == 248


def test_a_file_that_is_being_written_is_passed_over(run, tmp_path):
    other = write_run(tmp_path / "run", 2, 8)
    (other / "rollouts" / "step_000002.parquet").write_bytes(b"PAR1")
    assert {row["step"] for row in everything(other)} == {1}


@pytest.mark.parametrize(
    "asked",
    [
        {"reward": "big"},
        {"truncated": "maybe"},
        {"grading": "../.."},
        *({name: value} for name, value in itertools.product(("first", "shortest"), ("-1", "1e9", "x", "9" * 40, "\u0663"))),
        {"cursor": "x.y"},
        {"cursor": "1.2.3"},
    ],
)
def test_a_filter_that_is_none_is_refused(run, asked):
    with pytest.raises(InputError, match=next(iter(asked))):
        page(run, Pieces(run, ""), asked)
