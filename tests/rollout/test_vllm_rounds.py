"""Rounds of generate and learn: in each, the engine's log-probs are the learner's, with shared and with pushed weights."""

import copy
import gc
import itertools
import statistics

import pytest
import torch
from colocation import PROMPTS, improve, native_learner, pairs, requires_vllm, sample, tiny_engine, tiny_model

from fastgrpo.model import load_model
from fastgrpo.rollout.parity import parity
from fastgrpo.rollout.process_state import memory_mib

pytestmark = requires_vllm


@pytest.mark.slow  # 5 to 12 s each
@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        *(("qwen tied", "shared"), ("qwen untied", "push"), ("llama", "shared")),
        *(pytest.param(*case, marks=pytest.mark.long) for case in (("qwen tied", "push"), ("qwen untied", "shared"), ("llama", "push"))),
    ],
)
def test_engine_and_learner_agree_in_every_round(kind, weights):
    model = tiny_model(kind)
    engine = tiny_engine(model, weights)
    learner, resident = native_learner(model), []
    for round in range(10):
        before = copy.deepcopy(model)
        engine.update_weights(learner.named_weights())
        learner.temperature = (0.7, 1.0)[round % 2]
        groups = sample(engine, learner.temperature, base=round)
        engine.sleep()
        assert parity(learner.logprobs, pairs(groups)).largest < 5e-5, round
        improve(learner, groups)
        assert parity(learner.logprobs, pairs(groups)).largest > 1e-2, "the update changed too little to tell old weights from new"
        assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True))
        del before
        gc.collect()
        resident.append(memory_mib()["resident"])
    grown = [after - before for before, after in itertools.pairwise(resident[3:])]
    assert statistics.median(grown) < 1  # MiB a round; the allocator takes some more at once, now and then
    engine.close()


@pytest.mark.parametrize("kind", ["qwen tied", "qwen untied"])
def test_shared_weights_exist_once_and_a_checkpoint_of_them_loads_elsewhere(kind, tmp_path):
    model = tiny_model(kind)
    parameters = dict(model.named_parameters())
    engine = tiny_engine(model, "shared")
    learner = native_learner(model)
    improve(learner, sample(engine))
    engine.update_weights(learner.named_weights())
    groups = sample(engine)
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    tensors = [*model.parameters(), *engine.vllm.runner.model.parameters()]
    (memory,) = {(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()) for tensor in tensors}
    needed = sum(parameter.nbytes for parameter in model.parameters())
    assert memory[1] < needed * 1.1  # gaps between tensors and rows of padding are large for a model this small
    model.save_pretrained(tmp_path)
    engine.close()
    loaded = load_model(str(tmp_path), "float32")
    assert parity(native_learner(loaded).logprobs, pairs(groups, PROMPTS)).largest < 5e-5


def test_sharing_survives_a_restored_learner_and_notices_weights_moved_away():
    model = tiny_model("qwen tied")
    engine = tiny_engine(model, "auto")
    assert engine.metrics()["weights"] == "shared"
    learner = native_learner(model)
    saved = {name: tensor.clone() for name, tensor in learner.state()}
    first = sample(engine)
    improve(learner, first)
    learner.load_state(saved, 0)
    engine.update_weights(learner.named_weights())
    assert sample(engine) == first
    model.model.norm.weight.data = model.model.norm.weight.data.clone()
    with pytest.raises(RuntimeError, match=r"moved.*norm"):
        engine.update_weights(learner.named_weights())
    engine.close()
