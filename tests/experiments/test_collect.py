"""What runs of each kind wrote, as rows, and the numbers and curves that measures take from them."""

import json

import pytest

from fastgrpo.experiments.collect import curve, read_rows, value
from fastgrpo.experiments.definition import Measure

METRICS = [
    {"step": 0, "evaluation": {"greedy": {"x/hard.jsonl": {"accuracy": 0.1}, "easy": {"accuracy": 0.5}}}},
    {"step": 1, "length_wrong": 10.0, "accuracy": 0.9},
    {"step": 2, "length_wrong": None, "accuracy": 0.9},
    {"step": 3, "length_wrong": 30.0, "accuracy": 0.9},
    {"step": 3, "evaluation": {"greedy": {"x/hard.jsonl": {"accuracy": 0.7}}, "sampled": {"x/hard.jsonl": {"accuracy": 0.6}}}},
]


def measure(column: str, **more) -> Measure:
    return Measure(label="", column=column, **more)


@pytest.fixture
def training(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    return read_rows("train", tmp_path)


def test_a_measure_of_steps_is_a_mean_over_the_last_of_them(training):
    assert value(measure("length_wrong", last=2), training) == 30.0  # a step without wrong answers has no length of them
    assert value(measure("length_wrong", last=3), training) == 20.0
    assert curve(measure("accuracy"), training) == [(1, 0.9), (2, 0.9), (3, 0.9)]  # not those of evaluations


def test_a_measure_of_evaluations_is_of_one_set_and_way_or_of_their_average(training):
    of_hard = {"set": "hard", "way": "greedy"}
    assert curve(measure("accuracy", of="evaluation", where=of_hard), training) == [(0, 0.1), (3, 0.7)]
    assert value(measure("accuracy", of="evaluation", where=of_hard | {"way": "sampled"}), training) == 0.6
    assert curve(measure("accuracy", of="evaluation", where={"set": "average", "way": "greedy"}), training) == [(0, 0.3), (3, 0.7)]
    assert value(measure("accuracy", of="evaluation", where={"set": "other"}), training) is None


def test_a_measure_can_be_of_the_start_or_of_what_was_gained(training):
    of_hard = {"of": "evaluation", "where": {"set": "hard", "way": "greedy"}}
    assert value(measure("accuracy", when="start", **of_hard), training) == 0.1
    assert value(measure("accuracy", when="gain", **of_hard), training) == pytest.approx(0.6)
    assert value(measure("length_wrong", when="gain", last=2), training) == 20.0


def test_losses_of_a_pretraining_are_evaluations_of_its_texts(tmp_path):
    rows = [{"step": 0, "evaluation": {"a/book.txt": {"loss": 3.0}}}, {"step": 1, "loss": 2.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_rows("pretrain", tmp_path)
    assert value(measure("loss", of="evaluation", where={"set": "book"}), found) == 3.0
    assert value(measure("loss"), found) == 2.5


def test_an_evaluation_by_itself_reads_as_those_of_a_training_do(tmp_path):
    sets = {"hard": {"accuracy": 0.25, "pass_at": {"1": 0.25, "4": 0.5}}, "easy": {"accuracy": 0.75, "pass_at": {"1": 0.75, "4": 1.0}}}
    (tmp_path / "results.json").write_text(json.dumps({"protocol": {"temperature": 1.0}, "sets": sets}))
    rows = read_rows("eval", tmp_path)
    assert value(measure("pass_at.4", of="evaluation", where={"set": "hard", "way": "sampled"}), rows) == 0.5
    assert value(measure("accuracy", of="evaluation", where={"set": "average"}), rows) == 0.5
    assert value(measure("accuracy", of="evaluation", where={"set": "hard", "way": "greedy"}), rows) is None


def test_draws_of_an_analysis_are_rows_by_temperature(tmp_path):
    answering = [
        {"template": name, "temperature": t, "share": share} for name, t, share in (("no", 0.5, 0.9), ("r1", 0.5, 0.2), ("no", 1.0, 0.7))
    ]
    reflection = [{"template": "no", "temperature": 1.0, "reflecting": {"keywords": {"questions": 7}}}]
    (tmp_path / "summary.json").write_text(json.dumps({"answering": {"draws": answering}, "reflection": {"draws": reflection}}))
    rows = read_rows("analyze", tmp_path)
    assert curve(measure("share", of="answering", where={"template": "no"}), rows) == [(0.5, 0.9), (1.0, 0.7)]
    assert value(measure("share", of="answering", where={"template": "no"}, last=2), rows) == pytest.approx(0.8)
    assert value(measure("reflecting.keywords.questions", of="reflection", where={"temperature": 1}), rows) == 7
    assert value(measure("reflecting.judge.questions", of="reflection"), rows) is None
