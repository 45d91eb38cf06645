"""Losses of verl, OpenRLHF, oat and prime-rl: ours against their own functions where these are installed, and against their formulas."""

import sys

import pytest
import torch
from torch import Tensor

from fastgrpo.integrations import oat, openrlhf, prime_rl, verl
from fastgrpo.integrations.batches import AGGREGATIONS, aggregation_scale, logprobs_of_hidden

SEQUENCES, LENGTH = 6, 9


@pytest.fixture
def clean_modules():
    """Modules as before, since stand-ins of other packages are put among them."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name.split(".")[0] in ("verl", "openrlhf", "omegaconf", "tensordict", "ray"):
            del sys.modules[name]


class Batch:
    """(B, K) float64 log-probs far apart, one empty sequence, one of zero advantage."""

    def __init__(self, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        noises = 0.5 * torch.randn(4, SEQUENCES, LENGTH, generator=generator, dtype=torch.float64)
        self.new = (noises[0] - 2).requires_grad_()
        self.old, self.ref, self.sampler = (self.new.detach() + noise for noise in noises[1:])
        self.mask = (torch.arange(LENGTH) < torch.tensor([9, 1, 5, 0, 7, 3])[:, None]).long()
        self.advantages = torch.tensor([1.0, -1.5, 0.0, 0.7, -0.4, 0.9], dtype=torch.float64)[:, None].expand(SEQUENCES, LENGTH)
        self.weights = noises[3].abs()

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, self.new)[0]


def assert_same(batch: Batch, got: Tensor, want: Tensor) -> None:
    assert want.item() != 0 and got.item() == pytest.approx(want.item(), rel=1e-12)
    torch.testing.assert_close(batch.gradient(got), batch.gradient(want), rtol=1e-12, atol=1e-15)


def verl_config(**whole):
    from real_functions import ActorConfig

    numbers = {"clip_ratio": 0.2, "clip_ratio_low": None, "clip_ratio_high": 0.28, "clip_ratio_c": 1.6, "tau_pos": 1.0, "tau_neg": 1.05}
    return ActorConfig(**numbers, global_batch_info=whole)


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("name", ["vanilla", "cispo", "sapo", "gpg"])
@pytest.mark.parametrize("whole", [{}, {"dp_size": 2, "batch_num_tokens": 70, "global_batch_size": 16, "loss_scale_factor": 40}])
def test_verls_own_losses_and_metrics(clean_modules, mode, name, whole):
    from real_functions import verl_core_algos

    batch, config = Batch(), verl_config(**whole)
    theirs = getattr(verl_core_algos(), f"compute_policy_loss_{name}")
    for weights in (None, batch.weights):
        arguments = (batch.old, batch.new, batch.advantages, batch.mask, mode, config, weights)
        want, want_metrics = theirs(*arguments)
        got, metrics = verl.LOSSES[name](*arguments)
        assert_same(batch, got, want)
        assert metrics == pytest.approx(want_metrics, rel=1e-6)


def test_verl_finds_our_losses_by_name(clean_modules):
    from real_functions import verl_core_algos

    core = verl_core_algos()
    verl.register()
    assert core.get_policy_loss_fn("fastgrpo_vanilla") is verl.vanilla and core.get_policy_loss_fn("fastgrpo_gpg") is verl.gpg


@pytest.mark.parametrize("token_level_loss", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clip_eps_high": 0.28, "dual_clip": 1.5},
        {"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_threshold": (0.7, 1.4)},
        {"is_correction_level": "token", "is_correction_mode": "mask", "is_correction_threshold": (0.7, 1.4)},
        {"is_correction_level": "seq", "is_correction_mode": "mask", "is_correction_threshold": (0.9, 1.2)},
    ],
)
def test_openrlhfs_own_loss_and_metrics(clean_modules, settings, token_level_loss):
    from real_functions import openrlhf_policy_loss

    batch, settings = Batch(), settings | {"token_level_loss": token_level_loss}
    theirs, ours = openrlhf_policy_loss()(**settings), openrlhf.PolicyLoss(**settings)
    for whole in ({}, {"dp_size": 4, "batch_num_tokens": 90, "global_batch_size": 24}):
        arguments = (batch.new, batch.old, batch.advantages, batch.mask, batch.sampler)
        want, *want_numbers = theirs(*arguments, **whole)
        got, *numbers = ours(*arguments, **whole)
        assert_same(batch, got, want)
        for value, wanted in zip(numbers, want_numbers, strict=True):
            assert (value is None) == (wanted is None) and (value is None or value.item() == pytest.approx(wanted.item(), nan_ok=True))


@pytest.mark.parametrize("critic_type", ["drgrpo", "grpo"])
@pytest.mark.parametrize("case", ["clip", "clip, tis, kl", "reinforce, kl"])
def test_oats_formula(critic_type, case):
    batch, length, clip, cap, beta = Batch(), 40, 0.2, 1.3, 0.05
    mask = batch.mask.clone()
    mask[3, :2] = 1  # oat divides by the length: no sequence may be empty
    loss_masks, advantages = torch.tensor([1.0, 1, 1, 1, 0, 1]), batch.advantages[:, :1]
    ratio = (batch.new - batch.old).exp()
    losses = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))
    settings = {}
    if "reinforce" in case:
        losses = -advantages * batch.new
        settings |= {"reinforce_update": True}
    if "tis" in case:
        losses = losses * (batch.old - batch.sampler).exp().clamp(max=cap)
        settings |= {"tis_c": cap, "actor_logps": batch.sampler}
    if "kl" in case:
        gap = (batch.ref - batch.new).clamp(-40, 40)
        losses = losses + beta * (gap.expm1() - gap)
        settings |= {"beta": beta, "ref_logps": batch.ref}
    aggregated = (losses * mask).sum(1) / (length if critic_type == "drgrpo" else mask.sum(1))
    out = oat.policy_loss(
        batch.new,
        batch.old,
        advantages,
        mask,
        loss_masks,
        critic_type=critic_type,
        generate_max_length=length,
        cliprange=clip,
        **settings,
    )
    assert_same(batch, out.loss, (aggregated * loss_masks).mean())


@pytest.mark.parametrize("kl_mask_type", ["masked", "unmasked", "all"])
@pytest.mark.parametrize("sequence_low", [0.0, 0.4])
def test_prime_rls_formula(kl_mask_type, sequence_low):
    batch, low, high, tau, scale = Batch(), 0.6, 1.7, 0.1, 33.0
    total, lists = 0.0, ([], [], [], [])
    for row in (0, 1, 4, 5):
        mask = batch.mask[row].bool()
        log_ratio = batch.new[row] - batch.sampler[row]
        ratio = log_ratio.exp()
        masked = (ratio < low) | (ratio > high) | (ratio[mask].min() < sequence_low)
        of_kl = {"masked": mask & masked, "unmasked": mask & ~masked, "all": mask}[kl_mask_type]
        total = total - (ratio * batch.advantages[row])[mask & ~masked].sum() + tau * log_ratio[of_kl].sum()
        for values, one in zip(lists, (batch.new[row], batch.sampler[row], batch.advantages[row], mask), strict=True):
            values.append(one)
    settings = {"mask_ratio_low": low, "mask_ratio_high": high, "sequence_mask_ratio_low": sequence_low, "kl_tau": tau}
    loss, _ = prime_rl.compute_loss(*lists, loss_scale=scale, kl_mask_type=kl_mask_type, **settings)
    assert_same(batch, loss, total / scale)


def test_log_probs_of_hidden_states_are_those_of_full_logits_with_their_gradients():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(31, (2, 5), generator=generator)
    log_p = (hidden @ weight.T / 0.7).log_softmax(-1)
    want = log_p.gather(2, labels[..., None])[..., 0], -(log_p.exp() * log_p).sum(-1)
    got = logprobs_of_hidden(hidden, weight, labels, 0.7)
    for value, wanted in zip(got, want, strict=True):
        torch.testing.assert_close(value, wanted)
        for a, b in zip(
            *(torch.autograd.grad(x.square().sum(), (hidden, weight), retain_graph=True) for x in (value, wanted)), strict=True
        ):
            torch.testing.assert_close(a, b)


def test_what_is_not_computed_is_refused():
    with pytest.raises(ValueError, match=r"aggregation must be one of token-mean, .*, got 'mean'"):
        aggregation_scale(torch.ones(2, 3), "mean")
    with pytest.raises(ValueError, match="policy_loss_type='gspo' is not computed, only ppo"):
        openrlhf.PolicyLoss(policy_loss_type="gspo")
    with pytest.raises(ValueError, match="is_correction_gating='tv'"):
        openrlhf.PolicyLoss(is_correction_gating="tv")
    with pytest.raises(ValueError, match="critic_type='ppo' is not computed, only drgrpo and grpo"):
        oat.policy_loss(*[torch.ones(1, 1)] * 5, critic_type="ppo", generate_max_length=3)
    with pytest.raises(ValueError, match="kl_mask_type must be one of"):
        prime_rl.compute_loss([], [], [], [], loss_scale=1.0, mask_ratio_low=0.5, mask_ratio_high=2.0, kl_mask_type="none")
