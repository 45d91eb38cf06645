"""The same rollouts give the same update however they are cut, in float64: against the formula written out one response at a time."""

import random

import pytest
import torch
from exactness import (
    LR,
    PLANTED,
    float64_model,
    gradient_errors,
    learner_result,
    naive_result,
    random_cut,
    random_updates,
    sgd,
    without_silent,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fastgrpo.config import LossConfig
from fastgrpo.learner.native import adamw

BAR = 1e-12
PHASES = (Phase.explicit, Phase.generate)  # no shrinking: a failing case is small already, and minutes are lost

losses = st.builds(
    LossConfig,
    type=st.sampled_from(["dr_grpo", "grpo", "grpo_no_std", "grpo_no_length", "token_mean"]),
    clip_low=st.sampled_from([0.2, 0.05]),
    clip_high=st.sampled_from([0.2, 0.28]),
    delta=st.sampled_from([None, 1.5]),
    beta=st.sampled_from([0.0, 0.0, 0.3]),
    entropy_coef=st.sampled_from([0.0, 0.0, 0.1]),
    tis_cap=st.sampled_from([None, 2.0]),
    truncation=st.sampled_from(["zero_reward", "mask"]),
)


def results(path, loss, seed, packs, drop, make_optimizer, plant=None):
    """The learner's result over a random cut, and the naive one over the whole."""
    rng = random.Random(seed)
    updates = random_updates(rng, loss)
    kept = [without_silent(part, loss) if drop else part for part in updates]
    cut = [random_cut(part, packs, rng) for part in kept]
    reference = float64_model(path, seed=1) if loss.beta else None
    want = naive_result(float64_model(path), reference, updates, loss, make_optimizer)
    planted = {} if plant is None else {"plant": plant}
    return learner_result(float64_model(path), reference, cut, loss, make_optimizer, **planted), want


@settings(max_examples=25, deadline=None, derandomize=True, phases=PHASES)
@given(loss=losses, seed=st.integers(0, 2**32 - 1), packs=st.integers(1, 9), drop=st.booleans())
def test_any_cut_gives_the_gradient_norm_and_sgd_deltas_of_the_formula(tiny_model_dir, loss, seed, packs, drop):
    got, want = results(tiny_model_dir, loss, seed, packs, drop, sgd)
    assert max(gradient_errors(got, want).values()) <= BAR


@settings(max_examples=10, deadline=None, derandomize=True, phases=PHASES)
@given(loss=losses, seed=st.integers(0, 2**32 - 1), packs=st.integers(1, 9), drop=st.booleans())
def test_any_cut_gives_the_adamw_deltas_of_the_formula(tiny_model_dir, loss, seed, packs, drop):
    got, want = results(tiny_model_dir, loss, seed, packs, drop, adamw)
    assert (got.delta - want.delta).abs().max() <= 1e-9 * LR


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("loss_type", ["dr_grpo", "grpo", "token_mean"])
def test_planted_bugs_are_seen_by_every_bar(tiny_model_dir, name, loss_type):
    got, want = results(tiny_model_dir, LossConfig(type=loss_type), 3, 4, True, sgd, PLANTED[name])
    assert all(error > 1e-3 for error in gradient_errors(got, want).values())


def test_the_update_is_large_enough_for_clipping_to_bite(tiny_model_dir):
    """Otherwise the second update would test nothing but on-policy gradients."""
    loss = LossConfig(type="dr_grpo")
    updates = random_updates(random.Random(5), loss)
    unclipped = LossConfig(type="dr_grpo", clip_low=1.0, clip_high=1e9)
    clipped = naive_result(float64_model(tiny_model_dir), None, updates, loss, sgd)
    free = naive_result(float64_model(tiny_model_dir), None, updates, unclipped, sgd)
    assert torch.equal(clipped.gradients[0], free.gradients[0])
    assert not torch.allclose(clipped.gradients[1], free.gradients[1], rtol=1e-3)
