"""Runs with rewards of the user's own, replaced groups, and a best checkpoint: what reaches metrics, rollouts and the run's end."""

import json

import pyarrow.parquet
import pytest
from test_trainer import Silent, letter_problems, run

from fastgrpo.config import load_config
from fastgrpo.errors import HealthError, InputError
from fastgrpo.launch import launch

__all__ = ["letter_problems"]

REWARDS = """
import zlib

def checksum(completions, **_):
    return [float(zlib.crc32(text.encode()) % 2) for text in completions]

async def picky(completions, truncated, answer, problem, **_):
    assert len(answer) == len(problem) == len(truncated) == len(completions)
    return [None if zlib.crc32(text.encode()) % 3 == 0 else 0.5 for text in completions]

def broken(completions, **_):
    raise RuntimeError("the judge is away")

def constant(completions, **_):
    return [1] * len(completions)
"""


@pytest.fixture
def rewards(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(REWARDS)
    return path


def test_rewards_are_weighted_sums_and_unscorable_responses_are_left_out(tmp_path, tiny_model_dir, letter_problems, rewards):
    functions = f"reward.function=[{rewards}:checksum, {rewards}:picky]"
    _, rows, directory = run(tmp_path, tiny_model_dir, letter_problems, functions, "reward.weights=[1, 0.5]")
    written = pyarrow.parquet.read_table(directory / "rollouts" / "step_000001.parquet").to_pylist()
    for row in written:
        parts = json.loads(row["rewards"])
        if parts["picky"] is None:
            assert (row["reward"], row["advantage"], row["grading"]) == (None, 0.0, "unscorable")
        else:
            assert row["reward"] == parts["checksum"] + 0.25
    for prompt in {row["prompt_id"] for row in written}:
        scored = [row for row in written if row["prompt_id"] == prompt and row["reward"] is not None]
        mean = sum(row["reward"] for row in scored) / len(scored)
        assert all(row["advantage"] == pytest.approx(row["reward"] - mean) for row in scored)
    unscorable = sum(row["reward"] is None for row in written)
    assert rows[0]["grading"]["unscorable"] == unscorable > 0
    assert rows[0]["rewards"]["picky"] == 0.5
    assert "left without a reward" in (directory / "logs" / "rank_0.log").read_text()


def test_a_reward_that_is_always_away_ends_the_run_instead_of_teaching_nothing(tmp_path, tiny_model_dir, letter_problems, rewards):
    with pytest.raises(HealthError, match="no response got a reward for 3 steps"):
        run(tmp_path, tiny_model_dir, letter_problems, f"reward.function={rewards}:broken", "steps=9")


def test_a_reward_that_never_differs_is_warned_of_and_ends_the_run(tmp_path, tiny_model_dir, letter_problems, rewards):
    limit = "health.steps_without_signal=4"
    with pytest.raises(HealthError, match="for 4 steps, so nothing can be learned"):
        run(tmp_path, tiny_model_dir, letter_problems, f"reward.function={rewards}:constant", "steps=9", limit)
    log = (tmp_path / "run" / "logs" / "rank_0.log").read_text()
    assert "step 2: no group had two different rewards for 2 steps; at 4 the run ends" in log


def test_a_broken_reward_is_found_before_anything_is_made(tmp_path, tiny_model_dir, letter_problems, rewards):
    settings = [f"model={tiny_model_dir}", f"data.train={letter_problems}", "data.eval=[]", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(InputError, match="the judge is away"):
        launch(load_config("tiny", [*settings, f"reward.function={rewards}:broken"]), Silent())
    with pytest.raises(InputError, match="nothing"):
        launch(load_config("tiny", [*settings, f"reward.function={rewards}:nothing"]), Silent())
    assert not (tmp_path / "run").exists()


def test_refilled_groups_reach_metrics(tmp_path, tiny_model_dir, letter_problems):
    _, rows, _ = run(tmp_path, tiny_model_dir, letter_problems, "sampling.refill=2", "prompts_per_step=4")
    assert all(0 < row["refill"]["drawn"] <= 4 for row in rows)  # eight letters in all, four of them drawn first


def test_the_best_checkpoint_is_the_one_with_the_highest_metric(tmp_path, tiny_model_dir, letter_problems):
    settings = [f"data.eval={letter_problems}", "eval.every=1", "eval.ways=[sampled]", "checkpoint.best=sampled_average", "steps=4"]
    _, _, directory = run(tmp_path, tiny_model_dir, letter_problems, *settings, "temperature=2", "max_new_tokens=24", "lr=3e-2")
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    metrics = {row["step"]: row["metric"] for row in rows if "evaluation" in row}
    assert sorted(metrics) == [0, 1, 2, 3, 4]
    best = max(metrics, key=metrics.get)  # the first of equals
    assert (directory / "checkpoints" / "best").resolve().name == f"step_{best}"
    assert {path.name for path in (directory / "checkpoints").iterdir()} == {"best", "latest", f"step_{best}", "step_4"}
    predictions = pyarrow.parquet.read_table(directory / "evals" / "step_000003.parquet").to_pylist()
    assert len(predictions) == 8
    assert sum(row["right"] for row in predictions) / 8 == metrics[3]
