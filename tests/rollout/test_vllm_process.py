"""An engine in our own process, and two of them under torchrun: what it changes is put back, and ranks do not disturb each other."""

import json
import os
import random
from pathlib import Path

import numpy
import pytest
import torch
from colocation import requires_vllm, sample, tiny_engine, tiny_model
from forked_ranks import run_ranks

from fastgrpo.rollout.process_state import prepare_environment

pytestmark = requires_vllm


def test_building_and_sampling_leave_random_states_environment_and_threads_alone(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "7")
    prepare_environment()
    torch.manual_seed(3)
    states = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    environment = dict(os.environ)
    before = torch.get_num_threads(), torch.set_num_threads, os.sched_getaffinity(0)
    other = tiny_engine(tiny_model("qwen tied", seed=1), "auto")
    sample(other)
    other.sleep()
    sample(other)
    other.close()
    assert (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert (torch.get_num_threads(), torch.set_num_threads, os.sched_getaffinity(0)) == before
    assert {name: os.environ.get(name) for name in environment} == environment
    assert "LD_PRELOAD" not in os.environ


@pytest.mark.slow  # 25 s for each way: two processes that import and build vLLM on two cores
@pytest.mark.parametrize("tensor_parallel", [pytest.param(1, marks=pytest.mark.long), 2])
def test_two_ranks_sample_different_prompts_and_agree_with_their_learners(tmp_path, tensor_parallel):
    done = run_ranks(2, Path(__file__).parent / "two_ranks.py", tensor_parallel, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(2)]
    for report in reports:
        assert report["weights"] == ("shared" if tensor_parallel == 1 else "push")
        assert max(report["gaps"]) < 5e-5
        assert report["same_as_native"]
        assert report["local_world_size"] == "2"
    drawn = [{tuple(ids) for ids in report["responses"]} for report in reports]
    assert len(drawn[0]) == len(drawn[1]) == len(reports[0]["responses"])
    assert not drawn[0] & drawn[1]
