"""Every op in plain PyTorch, gradients from autograd: the definition, and what the fast versions are tested against.

Full softmax over (T, V) logits at logits / temperature; float64 stays float64, every other dtype is computed in float32.
"""

import torch
from torch import Tensor

from fastgrpo_kernels.checks import require_positive
from fastgrpo_kernels.row import compute_dtype


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """log pi(target), nats, (T,): logits (T, V) any float dtype, targets (T,) int64. Source: arXiv:2503.20783, Eq. 2."""
    return _log_softmax(logits, temperature).gather(1, targets[:, None]).squeeze(1)


def token_entropy(logits: Tensor, temperature: float) -> Tensor:
    """-sum_v p log p, nats, (T,); a logit of -inf contributes 0."""
    log_p = _log_softmax(logits, temperature)
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(dim=1)


def token_losses(
    logprobs: Tensor,
    *,
    old_logprobs: Tensor | None,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    tis_cap: float | None = None,
) -> Tensor:
    """l per token, (T,), before its scale: max(-A r, -A clip(r)), two-sided, importance-weighted, plus beta k3."""
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = (logprobs - old).clamp(-20, 20).exp()
    unclipped = ratio if delta is None else torch.where(advantages < 0, ratio.clamp(max=delta), ratio)
    losses = torch.maximum(-advantages * unclipped, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high))
    losses = torch.where(advantages == 0, 0.0, losses)
    if tis_cap is not None:
        losses = losses * (old - sampler_logprobs).detach().exp().clamp(max=tis_cap)
    if beta:
        d = (ref_logprobs - logprobs).clamp(-40, 40)
        losses = losses + beta * (d.exp() - d - 1)
    return losses


def policy_loss_from_logits(
    logits: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    scale: Tensor | None = None,
    denominator: float | None = None,
    loss_mask: Tensor | None = None,
    entropy_coef: float = 0.0,
    **objective,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (), logprobs (M,), entropy (M,)) over the M rows that loss_mask keeps; loss = sum of scale * (l - entropy_coef * entropy).

    logits (T, V), targets (T,); objective: the keywords of `token_losses`. Exactly one of scale (T,) and denominator.
    """
    if (scale is None) == (denominator is None):
        raise ValueError(f"give exactly one of scale and denominator, got {scale} and {denominator}")
    rows = torch.arange(len(logits)) if loss_mask is None else loss_mask.nonzero().squeeze(1)
    objective = {name: value[rows] if isinstance(value, Tensor) else value for name, value in objective.items()}
    logprobs, entropy = token_logprobs(logits[rows], targets[rows], temperature), token_entropy(logits[rows], temperature)
    losses = token_losses(logprobs, **objective) - entropy_coef * entropy
    weights = 1.0 / denominator if scale is None else scale[rows]
    return (weights * losses).sum(), logprobs, entropy


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    require_positive("temperature", temperature)
    return torch.log_softmax(logits.to(compute_dtype(logits.dtype)) / temperature, dim=1)
