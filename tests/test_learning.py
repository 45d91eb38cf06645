"""The main promise: `fastgrpo train` learns on a laptop, from any seed."""

import json
import subprocess
import sys

import pytest
from optional import requires


def train_tiny(directory, *settings):
    command = [sys.executable, "-m", "fastgrpo", "train", "tiny", f"run_dir={directory}", *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((directory / "summary.json").read_text())


SHORT = ("steps=12", "eval.every=0")  # of 30: the bars are passed by then


@pytest.mark.slow  # 150 to 260 s, base model included
@pytest.mark.timeout(1000)
@pytest.mark.parametrize(("seed", "settings"), [(0, SHORT), *(pytest.param(seed, (), marks=pytest.mark.long) for seed in (1, 2))])
def test_the_tiny_run_learns(tmp_path, seed, settings):
    summary = train_tiny(tmp_path / "run", f"seed={seed}", *settings)
    assert summary["problems"] >= 500
    assert 0.15 <= summary["accuracy_before"] <= 0.55
    assert summary["accuracy_after"] >= 0.80
    assert summary["accuracy_after"] >= summary["accuracy_before"] + 0.35
    assert summary["greedy_after"] >= summary["greedy_before"] - 0.02
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "updates" in row] == list(range(1, summary["steps"] + 1))


@pytest.mark.long  # 100 to 160 s each, on two cores
@pytest.mark.timeout(1000)
@requires("deepspeed")
@pytest.mark.parametrize("engine", ["native", pytest.param("vllm", marks=requires("vllm"))])
def test_two_ranks_learn_with_deepspeed_as_one_process_does(tmp_path, engine):
    settings = ("learner.engine=deepspeed", "learner.zero=3", f"rollout.engine={engine}", "rollout.cache_gib=0.25", *SHORT)
    summary = train_tiny(tmp_path / "run", "--gpus", "2", *settings)
    assert summary["accuracy_after"] >= 0.80
    assert summary["accuracy_after"] >= summary["accuracy_before"] + 0.35
    assert summary["greedy_after"] >= summary["greedy_before"] - 0.02
