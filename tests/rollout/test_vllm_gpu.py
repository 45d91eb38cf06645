"""What only a GPU can show of the colocated engine: memory that sleep gives back, the order of waking, and parity in bfloat16."""

import pytest
import torch
from colocation import PROMPTS, improve, native_learner, requires_vllm, sample, tiny_model
from conftest import byte_tokenizer

from fastgrpo.rollout.colocated import VllmEngine
from fastgrpo.rollout.parity import parity, require_parity, spread
from fastgrpo.rollout.vllm_settings import VllmSettings

pytestmark = [requires_vllm, pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
CACHE = 2**30


def free_mib() -> float:
    return torch.cuda.mem_get_info()[0] / 2**20


@pytest.mark.parametrize("weights", ["shared", "push"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounds_agree_and_sleep_gives_the_cache_back(weights, dtype):
    model = tiny_model("qwen untied", dtype=dtype).to("cuda")
    engine = VllmEngine(model, byte_tokenizer(), VllmSettings(512, 64, CACHE, weights))
    assert engine.metrics()["sleep_level"] == (0 if weights == "shared" else 2)
    learner, free = native_learner(model), []
    for round in range(5):
        engine.update_weights(learner.named_weights())
        groups = sample(engine, base=round)
        awake = free_mib()
        engine.sleep()
        free.append(free_mib())
        assert free[-1] - awake > 0.9 * CACHE / 2**20
        require_parity(round, str(dtype).removeprefix("torch."), parity(learner.logprobs, spread(PROMPTS, groups)))
        improve(learner, groups)
    assert max(free[1:]) - min(free[1:]) < 64
    engine.close()


def test_a_level_that_spoils_the_probe_is_not_used(monkeypatch):
    monkeypatch.setattr(VllmEngine, "_same_after_sleep", lambda engine: False)
    model = tiny_model("qwen untied").to("cuda")
    engine = VllmEngine(model, byte_tokenizer(), VllmSettings(512, 64, CACHE, "push"))
    assert engine.metrics()["sleep_level"] == 1
    before = sample(engine)
    engine.sleep()
    assert [[r.token_ids for r in group] for group in sample(engine)] == [[r.token_ids for r in group] for group in before]
    engine.close()
