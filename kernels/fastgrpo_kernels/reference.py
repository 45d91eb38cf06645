"""Every op in plain PyTorch, gradients from autograd: the definition, and what the fast versions are tested against.

Full softmax over (T, V); float64 stays float64, every other dtype is computed in float32.
"""

from itertools import pairwise

import torch
from torch import Tensor

from fastgrpo_kernels.checks import require_scaling
from fastgrpo_kernels.row import compute_dtype


def scaled_logits(
    logits: Tensor,
    temperature: float | Tensor,
    *,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
) -> Tensor:
    """z (T, V) = softcap tanh(logit_scale logit / softcap) / temperature; -inf from column vocab_size on and where the logit is -inf.

    temperature a number or (T,). The head's bias is in the logits already.
    """
    require_scaling(temperature, logit_scale, softcap, len(logits), logits.device)
    logits = logits.to(compute_dtype(logits.dtype))
    columns = torch.arange(logits.shape[1], device=logits.device)
    padding = (columns >= (logits.shape[1] if vocab_size is None else vocab_size)) | (logits == -torch.inf)
    z = logit_scale * logits.masked_fill(padding, 0.0)
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    return (z / (temperature[:, None] if isinstance(temperature, Tensor) else temperature)).masked_fill(padding, -torch.inf)


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float | Tensor, **scaling) -> Tensor:
    """log pi(target), nats, (T,): logits (T, V) any float dtype, targets (T,) int64; scaling: the keywords of `scaled_logits`.

    Source: arXiv:2503.20783, Eq. 2.
    """
    return scaled_logits(logits, temperature, **scaling).log_softmax(dim=1).gather(1, targets[:, None]).squeeze(1)


def token_entropy(logits: Tensor, temperature: float | Tensor, **scaling) -> Tensor:
    """-sum_v p log p, nats, (T,); a logit of -inf contributes 0."""
    log_p = scaled_logits(logits, temperature, **scaling).log_softmax(dim=1)
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(dim=1)


def token_losses(
    logprobs: Tensor,
    *,
    old_logprobs: Tensor | None,
    advantages: Tensor | None = None,
    grad_logprobs: Tensor | None = None,
    kind: str = "clip",
    clip_low: float | None = None,
    clip_high: float | None = None,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    tis_cap: float | None = None,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
) -> Tensor:
    """l per token, (T,), before its scale: the policy term of the kind, importance-weighted, plus beta k3. See `objective`."""
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = (logprobs - old).clamp(-20, 20).exp()
    signal = grad_logprobs if kind == "given" else advantages
    if kind == "clip":
        unclipped = ratio if delta is None else torch.where(advantages < 0, ratio.clamp(max=delta), ratio)
        losses = torch.maximum(-advantages * unclipped, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high))
    elif kind == "cispo":
        losses = -ratio.clamp(max=1 + clip_high).detach() * advantages * logprobs
    elif kind == "sapo":
        tau = torch.full_like(ratio, tau_neg).masked_fill(advantages > 0, tau_pos)
        losses = -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages
    else:
        losses = (grad_logprobs if kind == "given" else -advantages) * logprobs
    losses = torch.where(signal == 0, 0.0, losses)
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
    temperature: float | Tensor,
    scale: Tensor | None = None,
    denominator: float | None = None,
    loss_mask: Tensor | None = None,
    entropy_coef: float = 0.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
    **objective,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (), logprobs (M,), entropy (M,)) over the M rows that loss_mask keeps; loss = sum of scale * (l - entropy_coef * entropy).

    logits (T, V), targets (T,); objective: the keywords of `token_losses`. Exactly one of scale (T,) and denominator.
    """
    if (scale is None) == (denominator is None):
        raise ValueError(f"give exactly one of scale and denominator, got {scale} and {denominator}")
    rows = torch.arange(len(logits)) if loss_mask is None else loss_mask.nonzero().squeeze(1)
    objective = {name: value[rows] if isinstance(value, Tensor) else value for name, value in objective.items()}
    scaling = {"temperature": temperature[rows] if isinstance(temperature, Tensor) else temperature}
    scaling |= {"logit_scale": logit_scale, "softcap": softcap, "vocab_size": vocab_size}
    logprobs, entropy = token_logprobs(logits[rows], targets[rows], **scaling), token_entropy(logits[rows], **scaling)
    losses = token_losses(logprobs, **objective) - entropy_coef * entropy
    weights = 1.0 / denominator if scale is None else scale[rows]
    return (weights * losses).sum(), logprobs, entropy


def sequence_ratios(logprobs: Tensor, old_logprobs: Tensor, cu_seqlens: Tensor, loss_mask: Tensor) -> Tensor:
    """s (S,) of GSPO: exp of the mean log-ratio over each sequence's tokens in the mask, 1 where there is none."""
    bounds = pairwise(cu_seqlens.tolist())
    gaps = [(logprobs[start:end] - old_logprobs[start:end])[loss_mask[start:end]] for start, end in bounds]
    return torch.stack([(gap.sum() / max(len(gap), 1)).exp() for gap in gaps])
