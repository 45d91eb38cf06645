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
| | | kind cispo: clip_high where the weight was capped, which takes no gradient; the other kinds have no clip: 0 |
| k1_sum, k2_sum, k3_sum | float64 | sums of old - new, (log r)^2 / 2 and r - 1 - log r, nats: estimates of KL(old, new) |
| ratio_max | float64 | largest ratio (a maximum; 0 without rows) |
| ref_kl_sum | float64 | sum of the k3 KL to the reference before beta; only with ref_logprobs |
| sampler_gap_sum, sampler_gap_max | float64 | sum and maximum of abs(new - sampler), nats; only with sampler_logprobs, as the next two |
| sampler_k1_sum | float64 | sum of sampler - new, nats: an estimate of KL(sampler, new) |
| sampler_far | int64 | rows where abs(new - sampler) > FAR nats |
| tis_weight_sum, tis_capped | float64, int64 | sum of importance weights, rows at the cap; only with tis_cap |
"""

from typing import NamedTuple

import torch
from torch import Tensor

FAR = 0.1  # nats: the probability is off by a tenth


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
    sampler_gap: Tensor | None  # new - sampler
    tis_weight: Tensor | None
    tis_capped: Tensor | None


# The order in which stats travel as one float64 vector: an operator returns tensors, not a dict. Counts are exact up to 2^53.
_FLOATS = ("loss_sum", "k1_sum", "k2_sum", "k3_sum", "ratio_max")
_COUNTS = ("tokens", "kept", "clip_low", "clip_high", "tis_capped", "sampler_far")
_OPTIONAL_FLOATS = ("entropy_sum", "ref_kl_sum", "sampler_gap_sum", "sampler_gap_max", "sampler_k1_sum", "tis_weight_sum")
_ORDER = _FLOATS + _COUNTS + _OPTIONAL_FLOATS
STATS = len(_ORDER)


def packed_stats(terms: RowTerms, tokens: Tensor, entropy: Tensor | None = None) -> Tensor:
    """Every entry of the table, (STATS,) float64, from the terms of the kept rows; tokens () int64, entropy (M,). Absent entries are 0."""
    stats = {
        "tokens": tokens,
        "kept": torch.full_like(tokens, len(terms.loss)),
        "loss_sum": _sum(terms.loss),
        "clip_low": terms.clip_low.sum(),
        "clip_high": terms.clip_high.sum(),
        "k1_sum": _sum(terms.k1),
        "k2_sum": _sum(terms.log_ratio.square() / 2),
        "k3_sum": _sum(terms.log_ratio.expm1() - terms.log_ratio),
        "ratio_max": _max(terms.log_ratio.exp()),
    }
    if entropy is not None:
        stats["entropy_sum"] = _sum(entropy)
    if terms.ref_kl is not None:
        stats["ref_kl_sum"] = _sum(terms.ref_kl)
    if terms.sampler_gap is not None:
        distance = terms.sampler_gap.abs()
        stats["sampler_gap_sum"], stats["sampler_gap_max"] = _sum(distance), _max(distance)
        stats["sampler_k1_sum"], stats["sampler_far"] = -_sum(terms.sampler_gap), (distance > FAR).sum()
    if terms.tis_weight is not None:
        stats["tis_weight_sum"] = _sum(terms.tis_weight)
        stats["tis_capped"] = terms.tis_capped.sum()
    absent = torch.zeros((), dtype=torch.float64, device=tokens.device)
    return torch.stack([stats.get(name, absent).double() for name in _ORDER])


def unpacked_stats(
    packed: Tensor, ref_logprobs: Tensor | None, sampler_logprobs: Tensor | None, tis_cap: float | None, *, entropy: bool
) -> dict[str, Tensor]:
    """The entries of the table that exist with these optional inputs, from what `packed_stats` returned."""
    ref, sampler, tis = (value is not None for value in (ref_logprobs, sampler_logprobs, tis_cap))
    given = {"entropy_sum": entropy, "ref_kl_sum": ref, "tis_weight_sum": tis, "tis_capped": tis}
    given |= dict.fromkeys(("sampler_gap_sum", "sampler_gap_max", "sampler_k1_sum", "sampler_far"), sampler)
    values = dict(zip(_ORDER, packed.unbind(), strict=True))
    return {name: value.long() if name in _COUNTS else value for name, value in values.items() if given.get(name, True)}


def _sum(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.float64)


def _max(values: Tensor) -> Tensor:
    return values.double().amax() if len(values) else torch.zeros((), dtype=torch.float64, device=values.device)
