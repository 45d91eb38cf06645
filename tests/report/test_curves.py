"""The numbers of charts are those of the run's rows, step by step."""

import json

import pytest
from synthetic import evaluation_row, write_run

from fastgrpo.memory import memory_line
from fastgrpo.report.curves import charts
from fastgrpo.report.ledger import HELD, memory_ledger
from fastgrpo.report.spent import time_spent
from fastgrpo.report.subject import read_run


def run_of(tmp_path, rows, name="run"):
    run = write_run(tmp_path / name, 1)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_run(run)


def lines(chart) -> dict:
    return {line["name"]: list(zip(line["x"], line["y"], strict=True)) for line in chart["lines"]}


def drawn(*runs) -> dict:
    return {chart["id"]: chart for chart in charts(runs)}


def test_updates_of_a_step_are_their_mean_or_their_largest_and_skipped_ones_do_not_count(tmp_path):
    updates = [{"grad_norm": 1.0}, {"grad_norm": 4.0}, {"grad_norm": 0.0, "skipped": 1}]
    found = drawn(run_of(tmp_path, [{"step": 7, "updates": updates}]))
    assert lines(found["grad_norm"]) == {"mean": [(7, 2.5)], "largest": [(7, 4.0)]}


def test_lengths_of_right_and_wrong_are_apart_and_gaps_stay_gaps(tmp_path):
    rows = [{"step": 1, "length_right": None, "length_wrong": 9.0}, {"step": 2, "length_right": 5.0, "length_wrong": 8.0}]
    found = lines(drawn(run_of(tmp_path, rows))["lengths"])
    assert found == {"right": [(1, None), (2, 5.0)], "wrong": [(1, 9.0), (2, 8.0)]}


def test_held_out_accuracy_has_the_interval_of_each_evaluation(tmp_path):
    row = evaluation_row(16)
    (line, _) = drawn(run_of(tmp_path, [row]))["held_out"]["lines"]
    known = row["evaluation"]["greedy"]["aime24"]
    assert line["name"] == "greedy, aime24" and line["x"] == [16]
    assert (line["y"], line["low"], line["high"]) == tuple([pytest.approx(known[key], rel=1e-5)] for key in ("accuracy", "low", "high"))


def test_odd_grades_are_a_share_of_all(tmp_path):
    rows = [{"step": 1, "grading": {"ok": 6, "timeout": 1, "crash": 1}}]
    assert lines(drawn(run_of(tmp_path, rows))["grading"]) == {"odd grading": [(1, 0.25)]}


def test_pretraining_has_its_loss_and_a_policy_gradient_has_none(tmp_path):
    found = drawn(run_of(tmp_path, [{"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 1, "evaluation": {"text": {"loss": 3.0, "tokens": 5}}}]))
    assert lines(found["loss"]) == {"texts read": [(1, 2.0)]} and lines(found["held_out_loss"]) == {"text": [(1, 3.0)]}
    assert "loss" not in drawn(run_of(tmp_path, [{"step": 1, "updates": [{"loss": 2.0}]}], "other"))


def test_a_chart_without_numbers_is_left_out_and_an_empty_run_has_none(tmp_path):
    assert "kl" not in drawn(run_of(tmp_path, [{"step": 1, "reward": 0.5}])) and drawn(run_of(tmp_path, [], "empty")) == {}


def test_two_runs_share_a_chart_and_phases_belong_to_one(tmp_path):
    first, second = (run_of(tmp_path, [{"step": 1, "reward": reward, "seconds": {"learn": 1}}], str(reward)) for reward in (0.1, 0.2))
    found = drawn(first, second)
    assert [(line["run"], line["y"]) for line in found["reward"]["lines"]] == [(0, [0.1]), (1, [0.2])]
    assert "phases" not in found and "phases" in drawn(first)


def test_seconds_of_a_step_include_its_evaluation(tmp_path):
    rows = [
        {"step": 1, "seconds": {"sample": 2.0, "learn": 3.0}},
        {"step": 1, "evaluation": {}, "seconds": {"evaluate": 5.0, "learn": 0.5}},
    ]
    run = run_of(tmp_path, rows)
    assert lines(drawn(run)["phases"]) == {"sample": [(1, 2.0)], "learn": [(1, 3.5)], "evaluate": [(1, 5.0)]}
    spent = time_spent(run)
    assert spent["seconds"] == 10.5 and [phase["name"] for phase in spent["phases"]] == ["evaluate", "learn", "sample"]
    assert sum(phase["share"] for phase in spent["phases"]) == pytest.approx(1)


def test_advice_follows_from_the_run(tmp_path):
    run = read_run(write_run(tmp_path / "run", 3))
    advice = {phase["name"]: phase["advice"] for phase in time_spent(run)["phases"]}
    assert "packs are filled to 55%" in advice["learn"] and "rollout.engine=vllm" in advice["sample"]
    assert advice["grade"] == ""  # half a second of 140 is nothing to save


def test_throughput_is_tokens_by_seconds(tmp_path):
    rows = [{"step": 1, "response_tokens": 600, "seconds": {"sample": 2.0, "learn": 4.0}, "updates": [{"tokens": 200}]}]
    assert dict(map(tuple, time_spent(run_of(tmp_path, rows))["throughput"])) == {
        "response tokens": "600",
        "tokens/s over all phases": "100",
        "seconds per step": "6.00",
        "tokens/s while sampling": "300",
        "tokens/s while learning, of those with a gradient": "50",
    }


def test_memory_is_the_most_that_each_rank_and_the_engine_said(tmp_path):
    run = write_run(tmp_path / "run", 3)
    lines = [
        "1.00 s  step 1: memory 1.50 GiB, 1.75 GiB at its peak; GPU: 10.00 GiB allocated, 12.00 reserved, 60.00 free of 79.00",
        "2.00 s  step 2: memory 1.25 GiB, 2.00 GiB at its peak; GPU: 9.00 GiB allocated, 20.00 reserved, 50.00 free of 79.00",
    ]
    (run / "logs" / "rank_0.log").write_text("\n".join(lines))
    (run / "logs" / "rank_1.log").write_text("1.00 s  step 1: memory 3.00 GiB, 3.50 GiB at its peak\n")
    found = memory_ledger(read_run(run))
    assert list(found["ranks"]["rank_0"].values()) == [1.5, 2.0, 10.0, 20.0, 50.0, 79.0]
    assert found["ranks"]["rank_1"] == {"host": 3.0, "host at its peak": 3.5}
    assert found["moments"] == {"generated": {"resident": 9003.0, "device_free": 19997.0}} and found["said"] == []


def test_memory_lines_of_a_run_are_those_that_a_report_reads():
    found = HELD.search(memory_line())
    assert found and float(found[1]) > 0
