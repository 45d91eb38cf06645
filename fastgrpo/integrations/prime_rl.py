"""prime-rl's loss by ours: importance ratios against the sampler, tokens outside a band of ratios masked instead of clipped.

Formula: (sum over kept tokens of -r A + kl_tau * sum over the KL's tokens of log r) / loss_scale, r = exp(trainer - inference), kept where
mask_ratio_low <= r <= mask_ratio_high and no token of the sequence has r < sequence_mask_ratio_low. This is its ratio_type "token"; a
later prime-rl masks by differences of probabilities, which is not offered. No package of it can be installed here: the tests hold this to
the formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastgrpo_kernels import PolicyLossOutput, policy_loss

KL_MASKS = ("masked", "unmasked", "all")


def compute_loss(
    trainer_logprobs: Sequence[Tensor],
    inference_logprobs: Sequence[Tensor],
    advantages: Sequence[Tensor],
    loss_mask: Sequence[Tensor],
    *,
    loss_scale: float,
    mask_ratio_low: float,
    mask_ratio_high: float,
    sequence_mask_ratio_low: float = 0.0,
    kl_tau: float = 0.0,
    kl_mask_type: str = "all",
) -> tuple[Tensor, PolicyLossOutput]:
    """(loss (), differentiable in trainer_logprobs; the policy part with its statistics). A tensor (|o|,) each sequence, masks bool."""
    if kl_mask_type not in KL_MASKS:
        raise ValueError(f"kl_mask_type must be one of {', '.join(KL_MASKS)}, got {kl_mask_type!r}")
    kept = []
    for new, old, mask in zip(trainer_logprobs, inference_logprobs, loss_mask, strict=True):
        ratio = (new - old).detach().exp()
        whole = ratio.masked_fill(~mask, math.inf).min() >= sequence_mask_ratio_low
        kept.append(mask & (ratio >= mask_ratio_low) & (ratio <= mask_ratio_high) & whole)
    new, old, signal, mask, keep = map(torch.cat, (trainer_logprobs, inference_logprobs, advantages, loss_mask, kept))
    nothing_clipped = {"kind": "clip", "clip_low": 1.0, "clip_high": math.inf}
    out = policy_loss(new, old_logprobs=old, advantages=signal, loss_mask=keep, denominator=loss_scale, **nothing_clipped)
    of_kl = {"masked": mask & ~keep, "unmasked": keep, "all": mask}[kl_mask_type]
    return out.loss + kl_tau * (new - old)[of_kl].sum() / loss_scale, out
