"""Two runs beside each other: settings, numbers where both have steps, held-out accuracy with intervals, seconds."""

import json

import pytest
from synthetic import evaluation_row, write_run

from fastgrpo.errors import InputError
from fastgrpo.report.compare import compare_runs, tables


def two(tmp_path):
    first = write_run(tmp_path / "a", 40)
    second = write_run(tmp_path / "b", 20, settings=("loss.type=grpo",), seed=1)
    return first, second


def test_numbers_are_means_of_the_last_steps_that_both_reached(tmp_path):
    first, second = two(tmp_path)
    found = compare_runs(str(first), str(second))
    assert found["common_step"] == 20
    (reward,) = [row for row in found["metrics"] if row["chart"] == "reward"]
    for run, value in zip((first, second), reward["values"], strict=True):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        known = [row["reward"] for row in rows if "reward" in row and 16 <= row["step"] <= 20]
        assert len(known) == 5 and value == pytest.approx(sum(known) / 5)
    assert reward["difference"] == pytest.approx(reward["values"][1] - reward["values"][0])
    assert {row["key"]: row["texts"] for row in found["settings"]} == {
        "loss.type": ["dr_grpo", "grpo"],
        "steps": ["40", "20"],
        "seed": ["0", "1"],
    }


def test_intervals_say_whether_they_overlap(tmp_path):
    first, second = two(tmp_path)
    row = evaluation_row(20)
    row["evaluation"]["greedy"]["aime24"] |= {"accuracy": 0.99, "low": 0.95, "high": 1.0}
    with (second / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    held = {(row["name"], *row["steps"]): row for row in compare_runs(str(first), str(second))["held_out"]}
    assert set(held) == {(f"greedy, {name}", *steps) for name in ("aime24", "math500") for steps in ((16, 16), (32, 20))}
    assert held["greedy, aime24", 32, 20]["apart"] and held["greedy, aime24", 32, 20]["values"][1] == 0.99
    assert not held["greedy, aime24", 16, 16]["apart"] and held["greedy, aime24", 16, 16]["difference"] == 0


def test_a_run_without_steps_is_compared_as_far_as_it_goes(tmp_path):
    first = write_run(tmp_path / "a", 3)
    empty = tmp_path / "empty"
    (empty / "logs").mkdir(parents=True)
    (empty / "metrics.jsonl").write_text("")
    found = compare_runs(str(first), str(empty))
    assert found["common_step"] == 0 and found["metrics"] == [] and found["runs"][1]["state"] == "empty"
    assert json.loads(json.dumps(found)) == found
    assert tables(found)


def test_a_run_is_not_compared_with_itself(tmp_path):
    first = write_run(tmp_path / "a", 1)
    with pytest.raises(InputError, match="are the same run"):
        compare_runs(str(first), f"{first}/../a")
