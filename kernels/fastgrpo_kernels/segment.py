"""Sums over the sequences of a pack, and with them GSPO, whose ratio belongs to a sequence instead of a token.

On-policy GSPO needs none of this: the ratio is 1, so it is kind reinforce with scale 1 / (responses * length). Off-policy, log-probs first:

    logprobs, _ = linear_logprobs(hidden, weight, targets, temperature)                                            # under torch.no_grad()
    g = gspo_gradients(logprobs, old_logprobs, advantages, cu_seqlens, loss_mask, clip_low=3e-4, clip_high=4e-4)
    out = fused_linear_policy_loss(hidden, weight, targets, kind="given", grad_logprobs=g, scale=scale, ...)
"""

import torch
from torch import Tensor

from fastgrpo_kernels.checks import TOKEN_DTYPES, require_between, require_cu_seqlens, require_per_token
from fastgrpo_kernels.objective import MAX_LOG_RATIO


def segment_sum(values: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Sum of values over each sequence of a pack, added up in float64 in a fixed order: the same input gives the same bits.

    values (T,) float32 or float64; cu_seqlens (S + 1,) int32 or int64 on the same device, the sequences' bounds: 0 = c[0] <= c[1] <= ... <=
    c[S] = T (checked on the CPU only). Returns (S,) in values' dtype, 0 for an empty sequence, differentiable in values; a NaN stays in its
    own sequence. Raises ValueError.
    """
    require_per_token("values", values, len(values) if values.dim() else 0, values.device, TOKEN_DTYPES)
    require_cu_seqlens(cu_seqlens, len(values), values.device)
    # Offsets, not a difference of running sums, which would cancel and carry a NaN into every later sequence. One thread a sequence.
    return torch.segment_reduce(values.double(), "sum", offsets=cu_seqlens.long(), initial=0).to(values.dtype)


def segment_spread(values: Tensor, cu_seqlens: Tensor, tokens: int) -> Tensor:
    """(S,) to (T,): every token gets its sequence's value. tokens = T, which a GPU would otherwise be asked for."""
    return values.repeat_interleave(cu_seqlens.diff(), output_size=tokens)


def gspo_gradients(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    cu_seqlens: Tensor,
    loss_mask: Tensor | None,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """dl/dlogprob per token of l = sum over sequences of |o| max(-A s, -A clip(s, 1 - clip_low, 1 + clip_high)): for kind given.

    s = exp(mean of logprobs - old_logprobs over the sequence's tokens in the mask), of which there are |o|: g = -A s on the tokens of a
    sequence that the clip lets through, else 0. With scale 1 / (responses * |o|) this is the gradient of GSPO (arXiv:2507.18071, Eq. 5).
    logprobs, old_logprobs, advantages (T,) float32 or float64, advantages one value a sequence; cu_seqlens as in `segment_sum`; loss_mask
    (T,) bool or None; masked entries may hold anything. Returns (T,), detached, in logprobs' dtype, 0 where masked. Raises ValueError.
    """
    tokens, device = len(logprobs) if logprobs.dim() else 0, logprobs.device
    for name, column in (("logprobs", logprobs), ("old_logprobs", old_logprobs), ("advantages", advantages)):
        require_per_token(name, column, tokens, device, TOKEN_DTYPES)
    if loss_mask is not None:
        require_per_token("loss_mask", loss_mask, tokens, device, (torch.bool,))
    require_between("clip_low", clip_low, 0.0, 1.0)
    require_between("clip_high", clip_high, 0.0, float("inf"))
    with torch.no_grad():
        mask = torch.ones_like(logprobs, dtype=torch.bool) if loss_mask is None else loss_mask
        gap = torch.where(mask, logprobs - old_logprobs, 0.0).double()
        log_ratio = segment_sum(gap, cu_seqlens) / segment_sum(mask.double(), cu_seqlens).clamp(min=1)
        flat = log_ratio.abs() > MAX_LOG_RATIO
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        ratio, flat = (segment_spread(value, cu_seqlens, tokens) for value in (ratio, flat))
        flat = flat | ((advantages > 0) & (ratio > 1 + clip_high)) | ((advantages < 0) & (ratio < 1 - clip_low))
        live = mask & ~flat & (advantages != 0)
        return torch.where(live, -advantages * ratio, 0.0).to(logprobs.dtype)
