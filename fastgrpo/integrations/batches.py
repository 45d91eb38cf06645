"""Other trainers' tensors, (B, K) responses with a mask, as the flat tokens of `fastgrpo_kernels`; and their aggregations as scales.

A loss of theirs is a kind, advantages, and one scale a token that is known before the loss: sum over tokens of scale * l. verl's names
of aggregations are used for all of them; letters as there: N tokens in the mask, S sequences that have any, |o| a sequence's tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgrpo_kernels import PolicyLossOutput, linear_logprobs, policy_loss

AGGREGATIONS = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-sum-norm", "seq-mean-token-mean")


def logprobs_of_hidden(hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies, nats, of labels (...) from hidden (..., H) and the head's weight (V, H); differentiable, no logits kept.

    labels are int64 and aligned: hidden[..., t, :] predicts labels[..., t]. What verl's `linear_cross_entropy`, OpenRLHF's
    `log_probs_from_logits` and oat's `get_batch_logps` compute, over rows the caller chose.
    """
    logprobs, entropy = linear_logprobs(hidden.flatten(0, -2), weight, labels.flatten(), temperature)
    return logprobs.view(labels.shape), entropy.view(labels.shape)


def aggregation_scale(
    mask: Tensor,
    aggregation: str,
    tokens: float | Tensor | None = None,
    sequences: float | Tensor | None = None,
    length: float | None = None,
) -> Tensor:
    """(B, K) float64: the factor of each token's loss; mask (B, K) of 0 and 1.

    token-mean 1 / N; token-sum 1; seq-mean-token-sum 1 / S; seq-mean-token-sum-norm 1 / (S length); seq-mean-token-mean 1 / (S |o|).
    tokens and sequences replace N and S, as the totals of a batch of which this is a part; length is K where not given.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, got {aggregation!r}")
    counts = mask.sum(1, keepdim=True).double()
    if aggregation.startswith("token"):
        divisor = 1.0 if aggregation == "token-sum" else counts.sum() if tokens is None else tokens
    else:
        divisor = (counts > 0).sum() if sequences is None else sequences
        if aggregation == "seq-mean-token-sum-norm":
            divisor = divisor * (mask.shape[1] if length is None else length)
        if aggregation == "seq-mean-token-mean":
            divisor = divisor * counts.clamp(min=1)
    return torch.ones(mask.shape, dtype=torch.float64, device=mask.device) / divisor


def batch_policy_loss(logprobs: Tensor, mask: Tensor, scale: Tensor, advantages: Tensor | None = None, **columns) -> PolicyLossOutput:
    """`fastgrpo_kernels.policy_loss` of (B, K) tensors; advantages (B, K) or (B, 1); other tensors and settings as there."""

    def flat(value):
        return value.expand(mask.shape).flatten() if isinstance(value, Tensor) else value

    columns = {name: flat(value) for name, value in columns.items()}
    return policy_loss(flat(logprobs), loss_mask=flat(mask).bool(), scale=flat(scale), advantages=flat(advantages), **columns)


def share(count: Tensor, mask: Tensor) -> Tensor:
    """Of a count of tokens, the share in the mask."""
    return count / mask.sum().clamp(min=1)


def clipped_share(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    """The share of tokens whose gradient the clip takes, by their own advantages, whatever weighs them."""
    ratio = (new.detach() - old).exp()
    clipped = ((ratio > 1 + high) & (advantages > 0)) | ((ratio < 1 - low) & (advantages < 0))
    return share((clipped & mask.bool()).sum(), mask)
