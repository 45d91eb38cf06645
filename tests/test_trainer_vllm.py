"""Whole runs with vLLM beside the learner: the same responses as the native engine draws, and an end where the two disagree."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from rollout.colocation import requires_vllm
from test_learning import SHORT, train_tiny
from test_trainer import easy_reward, letter_problems, run

from fastgrpo.errors import HealthError

__all__ = ["easy_reward", "letter_problems"]
pytestmark = requires_vllm

VLLM = ("rollout.engine=vllm", "rollout.cache_gib=0.125")


def responses(directory: Path, step: int) -> list:
    rows = pyarrow.parquet.read_table(directory / "rollouts" / f"step_{step:06d}.parquet").to_pylist()
    return [(row["prompt_id"], row["token_ids"], row["finish_reason"]) for row in rows]


@pytest.mark.slow  # 15 s: two engines are built
@pytest.mark.parametrize("weights", ["shared", "push"])
def test_a_run_draws_what_the_native_engine_draws(tmp_path, tiny_model_dir, letter_problems, easy_reward, weights):
    both = ("lr=1e-4", "max_new_tokens=12", "sampling.refill=1")
    native = run(tmp_path, tiny_model_dir, letter_problems, *both, name="native")
    vllm = run(tmp_path, tiny_model_dir, letter_problems, *both, *VLLM, f"rollout.weights={weights}", name="vllm")
    assert responses(vllm[2], 1) == responses(native[2], 1)
    for row in vllm[1]:
        assert row["parity"]["largest"] < 2e-3 and row["parity"]["tokens"] > 20
        assert row["rollout_engine"]["weights"] == weights
        assert row["rollout_engine"]["failures"] == []
        assert row["updates"][0]["logprob_gap_max"] < 2e-3 and row["updates"][0]["logprob_gap_far"] == 0
    assert f"weights: {weights}" in (vllm[2] / "logs" / "rank_0.log").read_text()


@pytest.mark.slow  # 8 s
def test_weights_that_never_arrive_end_the_run_before_it_learns_from_them(
    tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch
):
    from fastgrpo.rollout.vllm import InProcessVllm

    monkeypatch.setattr(InProcessVllm, "load", lambda self, weights: 0)
    settings = (*VLLM, "rollout.weights=push", "lr=3e-2", "steps=6")
    with pytest.raises(HealthError, match=r"step 2: the rollout engine and the learner disagree"):
        run(tmp_path, tiny_model_dir, letter_problems, *settings)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1]


@pytest.mark.long  # 70 to 150 s each, with the base model in the cache
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_tiny_run_learns_with_vllm(tmp_path, seed):
    weights = "push" if seed == 1 else "shared"
    engine = ("rollout.engine=vllm", "rollout.cache_gib=0.25", f"rollout.weights={weights}")
    summary = train_tiny(tmp_path / "run", *engine, *SHORT, f"seed={seed}")
    assert summary["accuracy_after"] >= 0.80
    assert summary["accuracy_after"] >= summary["accuracy_before"] + 0.35
    assert summary["greedy_after"] >= summary["greedy_before"] - 0.02
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["parity"]["mean"] < 1e-5 for row in rows if "updates" in row)
