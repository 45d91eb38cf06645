"""The native learner: fp32 masters, accumulation, clipping, schedule, and no step from numbers that are not finite."""

import dataclasses
import math

import pytest
import torch

from fastgrpo.config import LossConfig
from fastgrpo.errors import HealthError
from fastgrpo.learner.native import NativeLearner
from fastgrpo.model import load_model
from fastgrpo.packing import pack_one
from fastgrpo.types import TrainingSequence

LOSS = LossConfig(type="dr_grpo")


def learner(path, dtype="float32", lr=1e-3, grad_clip=math.inf, loss=LOSS):
    return NativeLearner(load_model(str(path), dtype), loss, 1.0, lr if callable(lr) else lambda update: lr, grad_clip)


def batch(advantage=1.0, scale=0.05):
    response = (11, 12, 13, 14, 15)
    return pack_one([TrainingSequence((1, 2, 3), response, (-5.0,) * 5, advantage, scale)])


def weights(learner):
    return torch.cat([tensor.detach().float().reshape(-1) for _, tensor in learner.named_weights()])


def test_two_backwards_add_up_to_one_of_twice_the_scale(tiny_model_dir):
    twice, double = learner(tiny_model_dir), learner(tiny_model_dir)
    for _ in range(2):
        twice.backward(batch())
    double.backward(batch(scale=0.1))
    assert twice.step() == pytest.approx(double.step(), rel=1e-6)


def test_a_positive_advantage_raises_the_logprob_and_a_negative_one_lowers_it(tiny_model_dir):
    for advantage in (1.0, -1.0):
        one = learner(tiny_model_dir, lr=1e-4)
        before = one.logprobs([batch()])[0].sum()
        one.backward(batch(advantage))
        one.step()
        assert (one.logprobs([batch()])[0].sum() - before) * advantage > 0.01


def test_bf16_weights_have_fp32_masters_that_keep_small_updates(tiny_model_dir):
    """At lr 1e-6 an update is lost in bf16, whose spacing at 0.1 is 5e-4; in the masters 100 of them add up."""
    one = learner(tiny_model_dir, "bfloat16", lr=1e-6)
    start = [master.clone() for master in one.masters]
    for _ in range(100):
        for gradient in one.gradients:
            gradient.fill_(1.0)
        one.step()
    for before, master in zip(start, one.masters, strict=True):
        assert master.dtype == torch.float32
        assert ((before - master) / 1e-4 - 1).abs().max() < 0.02  # norm weights of 1 round by 1.3 % even in fp32
    assert all(torch.equal(p, m.bfloat16()) for p, m in zip(one.parameters, one.masters, strict=True))


def test_bf16_gradients_accumulate_in_fp32(tiny_model_dir):
    one = learner(tiny_model_dir, "bfloat16")
    one.backward(batch())
    first = [gradient.clone() for gradient in one.gradients]
    for _ in range(299):
        one.backward(batch())
    for gradient, once in zip(one.gradients, first, strict=True):
        assert gradient.dtype == torch.float32
        assert torch.allclose(gradient, 300 * once, rtol=1e-4, atol=1e-4 * float(once.abs().max()))


def test_the_gradient_norm_is_clipped_and_reported_unclipped(tiny_model_dir):
    free, clipped = learner(tiny_model_dir), learner(tiny_model_dir, grad_clip=1e-3)
    seen = []
    clipped.optimizer.register_step_pre_hook(lambda *_: seen.append(torch.stack([m.grad.norm() for m in clipped.masters]).norm().item()))
    for one in (free, clipped):
        one.backward(batch(scale=1.0))
    assert clipped.step() == pytest.approx(free.step())
    assert seen[0] == pytest.approx(1e-3, rel=1e-4)


def test_the_schedule_counts_updates(tiny_model_dir):
    one, used = learner(tiny_model_dir, lr=lambda update: 0.1 * (update + 1)), []
    one.optimizer.register_step_pre_hook(lambda *_: used.append(one.optimizer.param_groups[0]["lr"]))
    for _ in range(3):
        one.step()
    assert used == pytest.approx([0.1, 0.2, 0.3])


def test_an_update_without_packs_still_moves_by_momentum(tiny_model_dir):
    one = learner(tiny_model_dir)
    one.backward(batch())
    one.step()
    before = weights(one)
    assert one.step() == 0.0
    assert not torch.equal(before, weights(one))


def test_a_gradient_that_is_not_finite_changes_nothing(tiny_model_dir):
    one = learner(tiny_model_dir)
    before = weights(one)
    spoiled = batch()
    one.backward(dataclasses.replace(spoiled, scale=spoiled.scale * math.nan))
    with pytest.raises(HealthError, match="update 0: the gradient norm is nan; no weight was changed"):
        one.step()
    assert torch.equal(before, weights(one))


def test_state_restores_the_same_next_update(tiny_model_dir):
    one = learner(tiny_model_dir, "bfloat16", lr=1e-2)
    one.backward(batch())
    one.step()
    state = {name: tensor.clone() for name, tensor in one.state()}
    other = learner(tiny_model_dir, "bfloat16", lr=1e-2)
    other.load_state(state, one.updates)
    for each in (one, other):
        each.backward(batch(-1.0))
        each.step()
    assert torch.equal(weights(one), weights(other))
    assert one.updates == other.updates == 2


def test_the_ratio_is_exactly_one_over_the_same_pack(tiny_model_dir):
    one = learner(tiny_model_dir)
    stats = one.backward(batch().with_logprobs(old_logprobs=one.logprobs([batch()])[0]))
    assert stats["ratio_max"] == 1.0
    assert stats["k3_sum"] == 0.0
