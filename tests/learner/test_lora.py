"""LoRA: adapters alone are trained, exactly; weights leave the learner merged, and the base is never written."""

import random

import pytest
import torch
from conftest import byte_tokenizer
from exactness import (
    TEMPERATURE,
    float64_model,
    gradient_errors,
    learner_result,
    naive_result,
    random_cut,
    random_updates,
    relative,
    sgd,
    without_silent,
)
from learner.adapters import adapted, matrices, merged
from rollout.colocation import improve, pairs, requires_vllm, sample, tiny_model
from safetensors.torch import load_file
from test_learner import batch
from test_trainer import easy_reward, letter_problems, run

from fastgrpo.checkpoint import Checkpoints
from fastgrpo.config import LossConfig
from fastgrpo.config_sections import LearnerConfig, RolloutConfig
from fastgrpo.engines import make_engine
from fastgrpo.errors import InputError
from fastgrpo.learner.lora import with_adapters
from fastgrpo.learner.native import NativeLearner
from fastgrpo.model import load_model, load_tokenizer, model_logprobs
from fastgrpo.progress import Progress
from fastgrpo.rollout.parity import parity

__all__ = ["easy_reward", "letter_problems"]
pytest.importorskip("peft")

LOSS = LossConfig(type="dr_grpo")
SCALING = 32 / 4


def native(twin, lr: float = 1e-3) -> NativeLearner:
    return NativeLearner(twin, LOSS, 1.0, lambda update: lr, 1.0)


def bits(model) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_twin_begins_as_the_model_shares_its_weights_and_trains_adapters_alone(tiny_model_dir, dtype):
    model, state = load_model(str(tiny_model_dir), dtype), torch.random.get_rng_state()
    twin, again, other = (with_adapters(model, LearnerConfig(lora_rank=4), seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(model_logprobs(twin, batch(), 1.0), model_logprobs(model, batch(), 1.0))
    own = dict(twin.named_parameters())
    assert {name for name, parameter in own.items() if parameter.requires_grad} == {name for name in own if ".lora_" in name}
    assert {id(parameter) for parameter in model.parameters()} == {id(p) for p in own.values() if not p.requires_grad}
    assert {parameter.dtype for parameter in own.values()} == {model.dtype}
    assert len(matrices(twin)) == 2 * 7  # all that is linear in two layers, without the head
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(iter(matrices(twin).values()))[0], next(iter(matrices(other).values()))[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_weights_are_handed_out_merged_rounded_once_and_a_hundred_times_leave_the_base_as_it_was(tiny_model_dir, dtype):
    model = load_model(str(tiny_model_dir), dtype)
    start, names = bits(model), [name for name, _ in model.named_parameters()]
    learner = native(adapted(model))
    for number in range(100):
        if number % 20 == 0:
            learner.update([batch()])
        found = {name: tensor.clone() for name, tensor in learner.named_weights()}
    assert list(found) == names
    for name, want in merged(model, learner.model, SCALING).items():
        assert found[name].dtype == model.dtype
        rounding = 0.5 * torch.finfo(model.dtype).eps * want.abs()
        sum_of_products = 4 * torch.finfo(torch.promote_types(model.dtype, torch.float32)).eps * want.abs().max()
        assert ((found[name].double() - want).abs() <= rounding + sum_of_products).all(), name
    assert any(not torch.equal(tensor, dict(model.named_parameters())[name]) for name, tensor in found.items())
    assert all(map(torch.equal, start, bits(model)))


def test_bf16_adapters_have_fp32_masters(tiny_model_dir):
    learner = native(adapted(load_model(str(tiny_model_dir), "bfloat16")))
    assert {master.dtype for master in learner.masters} == {torch.float32}
    assert sum(master.numel() for master in learner.masters) == sum(a.numel() + b.numel() for a, b in matrices(learner.model).values())


def test_the_model_stays_the_reference_of_what_is_trained(tiny_model_dir):
    model = load_model(str(tiny_model_dir), "float32")
    learner, before = native(adapted(model), 1e-2), model_logprobs(model, batch(), 1.0)
    own = learner.logprobs([batch()])[0]
    learner.update([batch()])
    assert torch.equal(model_logprobs(model, batch(), 1.0), before)
    assert not torch.allclose(learner.logprobs([batch()])[0], own, atol=1e-2)


def test_a_checkpoint_is_the_merged_model_and_the_adapter_loads_in_peft(tiny_model_dir, tmp_path):
    import peft

    model, tokenizer = load_model(str(tiny_model_dir), "float32"), load_tokenizer(str(tiny_model_dir))
    learner = native(adapted(model), 1e-2)
    learner.update([batch()])
    want = learner.logprobs([batch()])[0]
    path = Checkpoints(tmp_path, model, tokenizer, learner, adapter=learner.model).save(Progress(step=1))
    assert (model_logprobs(load_model(str(path), "float32"), batch(), 1.0) - want).abs().max() < 2e-5
    loaded = peft.PeftModel.from_pretrained(load_model(str(tiny_model_dir), "float32"), path / "adapter").base_model.model
    assert torch.equal(model_logprobs(loaded, batch(), 1.0), want)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (("q_proj", "lm_head"), "lm_head is the output head or the input embedding"),
        (("embed_tokens",), "embed_tokens is the output head or the input embedding"),
        (
            ("wq",),
            "wq names no linear layer of this model; it can hold down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, or be",
        ),
        (("mlp",), "mlp names no linear layer"),
        (("all-linear", "lm_head"), "all-linear names no linear layer"),
    ],
)
def test_wrong_targets_are_refused_in_one_line(tiny_model_dir, targets, words):
    with pytest.raises(InputError, match=f"learner.lora_targets: {words}"):
        with_adapters(load_model(str(tiny_model_dir), "float32"), LearnerConfig(lora_rank=4, lora_targets=targets), 0)


def test_chosen_targets_get_the_adapters(tiny_model_dir):
    twin = adapted(load_model(str(tiny_model_dir), "float32"), lora_targets=("q_proj", "v_proj"))
    assert {name.split(".")[-2] for name in matrices(twin)} == {"q_proj", "v_proj"}


@pytest.mark.parametrize(("seed", "packs", "beta"), [(0, 1, 0.0), (1, 3, 0.0), (2, 7, 0.3)])
def test_any_cut_gives_the_update_of_the_formula(tiny_model_dir, seed, packs, beta):
    loss, rng = LossConfig(type="dr_grpo", beta=beta), random.Random(seed)
    updates, model = random_updates(rng, loss), float64_model(tiny_model_dir)
    cut = [random_cut(without_silent(part, loss), packs, rng) for part in updates]
    want = naive_result(adapted(float64_model(tiny_model_dir)), float64_model(tiny_model_dir), updates, loss, sgd)
    got = learner_result(adapted(model), model, cut, loss, sgd)
    assert max(gradient_errors(got, want).values()) <= 1e-12


def test_gradients_follow_from_those_of_the_merged_weights(tiny_model_dir):
    """dL/dB = s dL/dW A^T and dL/dA = s B^T dL/dW, with dL/dW of a plain model, which knows nothing of adapters."""
    updates, rng = random_updates(random.Random(5), LOSS, updates=1), random.Random(5)
    model, plain = float64_model(tiny_model_dir), float64_model(tiny_model_dir)
    twin = adapted(model)
    for name, value in merged(model, twin, SCALING).items():
        plain.get_parameter(name).data.copy_(value)
    naive_result(plain, None, updates, LOSS, sgd)
    learner = NativeLearner(twin, LOSS, TEMPERATURE, lambda update: 1.0, 1.0, sgd)
    for pack in random_cut(updates[0], 3, rng):
        learner.backward(pack)
    gradients = dict(zip(map(id, learner.parameters), learner.gradients, strict=True))
    for name, (a, b) in matrices(twin).items():
        of_weight = plain.get_parameter(name).grad
        assert relative(gradients[id(b)], SCALING * of_weight @ a.T) < 1e-12
        assert relative(gradients[id(a)], SCALING * b.T @ of_weight) < 1e-12


LORA = ("learner.lora_rank=8", "lr=1e-2", "max_new_tokens=12", "loss.beta=1e-3")


@pytest.mark.slow  # 6 s
@pytest.mark.parametrize("more", [(), ("learner.engine=deepspeed", "learner.zero=3")])
def test_a_run_trains_adapters_and_its_checkpoint_is_a_plain_model(tmp_path, tiny_model_dir, letter_problems, easy_reward, more):
    pytest.importorskip("deepspeed") if more else None
    _, rows, directory = run(tmp_path, tiny_model_dir, letter_problems, *LORA, *more)
    for row in rows:
        first, last = row["updates"][0], row["updates"][-1]
        assert first["logprob_gap_max"] < 1e-4, "the sampler has other weights than the learner"
        assert last["grad_norm"] > 0
    assert rows[0]["updates"][0]["ref_kl"] < 1e-9 < 1e-4 < rows[1]["updates"][0]["ref_kl"], "the reference is not the base"
    found, start = load_file(directory / "checkpoints/step_2/model.safetensors"), load_file(tiny_model_dir / "model.safetensors")
    assert found.keys() == start.keys()
    changed = {name for name in start if not torch.equal(found[name], start[name])}
    assert changed == {name for name in start if name.endswith("_proj.weight")}


@requires_vllm
@pytest.mark.slow  # 8 s
def test_vllm_gets_the_merged_weights_by_push_and_says_why(tmp_path, tiny_model_dir, letter_problems, easy_reward):
    _, rows, directory = run(tmp_path, tiny_model_dir, letter_problems, *LORA, "rollout.engine=vllm", "rollout.cache_gib=0.125")
    for row in rows:
        assert row["parity"]["largest"] < 2e-3 and row["parity"]["tokens"] > 20
        assert row["updates"][0]["logprob_gap_max"] < 2e-3
    assert rows[0]["rollout_engine"]["weights"] == "push" and rows[0]["rollout_engine"]["failures"] == []
    assert "weights: push (the weights are frozen, and adapters beside them are trained" in (directory / "logs/rank_0.log").read_text()


@requires_vllm
@pytest.mark.slow  # 8 s
def test_a_vllm_engine_that_is_built_again_begins_with_the_merged_weights():
    model = tiny_model("qwen tied")
    learner = native(adapted(model), 1e-2)
    engine = make_engine(RolloutConfig(engine="vllm", cache_gib=0.0625), model, byte_tokenizer(), 512, learner.named_weights)
    improve(learner, sample(engine))
    engine.engine.vllm.draw = None  # the next call of it fails
    assert parity(learner.logprobs, pairs(sample(engine))).largest < 5e-5
    assert len(engine.failures) == 1
    engine.close()
