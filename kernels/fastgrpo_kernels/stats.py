"""What a loss returns, and the sums and counts that come with it: they add up over packs and ranks, means would not.

Rows that were not computed are absent from every entry but `tokens`: masked rows always, and in `fused_linear_policy_loss` also the rows of
zero advantage when there is neither a KL nor an entropy term. A mean over `kept` is therefore biased towards the groups that carry signal.

| entry | dtype | over the kept rows |
|---|---|---|
| tokens | int64 | rows that the mask lets through, computed or not |
| kept | int64 | rows computed; divide the sums by this |
| loss_sum | float64 | sum of l before the scale, KL and entropy terms included |
| entropy_sum | float64 | sum of entropies, nats; not from `policy_loss`, which sees no distribution |
| clip_low, clip_high | int64 | A < 0 and ratio < 1 - clip_low; A > 0 and ratio > 1 + clip_high: the clip took the gradient |
| k1_sum, k3_sum | float64 | sums of old - new and of r - 1 - log r, nats: estimates of KL(old, new) |
| ratio_max | float64 | largest ratio (a maximum; 0 without rows) |
| ref_kl_sum | float64 | sum of the k3 KL to the reference before beta; only with ref_logprobs |
| sampler_gap_sum, sampler_gap_max | float64 | sum and maximum of abs(new - sampler), nats; only with sampler_logprobs |
| tis_weight_sum, tis_capped | float64, int64 | sum of importance weights, rows at the cap; only with tis_cap |
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLossOutput(NamedTuple):
    """loss () differentiable; logprobs (T,) and entropy (T,) in nats, detached, 0 in rows not computed; stats: see the module.

    entropy is None from `policy_loss` alone, which has no distribution to take it from.
    """

    loss: Tensor
    logprobs: Tensor
    entropy: Tensor | None
    stats: dict[str, Tensor]


class RowTerms(NamedTuple):
    """The objective row by row, (M,) each: loss unscaled, gradient = dloss/dlogprob; None where an optional input was not given."""

    loss: Tensor
    gradient: Tensor
    log_ratio: Tensor  # new - old, clamped
    k1: Tensor
    clip_low: Tensor
    clip_high: Tensor
    ref_kl: Tensor | None
    sampler_gap: Tensor | None
    tis_weight: Tensor | None
    tis_capped: Tensor | None


def stats_of(terms: RowTerms, tokens: Tensor) -> dict[str, Tensor]:
    """Every entry of the table but entropy_sum, from the terms of the kept rows; tokens () int64."""
    stats = {
        "tokens": tokens,
        "kept": torch.full_like(tokens, len(terms.loss)),
        "loss_sum": _sum(terms.loss),
        "clip_low": terms.clip_low.sum(),
        "clip_high": terms.clip_high.sum(),
        "k1_sum": _sum(terms.k1),
        "k3_sum": _sum(terms.log_ratio.expm1() - terms.log_ratio),
        "ratio_max": _max(terms.log_ratio.exp()),
    }
    if terms.ref_kl is not None:
        stats["ref_kl_sum"] = _sum(terms.ref_kl)
    if terms.sampler_gap is not None:
        stats["sampler_gap_sum"] = _sum(terms.sampler_gap)
        stats["sampler_gap_max"] = _max(terms.sampler_gap)
    if terms.tis_weight is not None:
        stats["tis_weight_sum"] = _sum(terms.tis_weight)
        stats["tis_capped"] = terms.tis_capped.sum()
    return stats


def _sum(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.float64)


def _max(values: Tensor) -> Tensor:
    return values.double().amax() if len(values) else torch.zeros((), dtype=torch.float64, device=values.device)
