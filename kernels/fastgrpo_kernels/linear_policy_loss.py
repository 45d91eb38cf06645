"""From hidden states to the clipped policy-gradient loss, with the gradients made in the forward pass: three products per tile of tokens.

Surprising: backward computes nothing. The aggregation is only a scale per token that is known beforehand, so a tile of logits can be turned
into its own gradient and multiplied into dX and dW before the next tile overwrites it: 6 M H V FLOPs, the minimum, and no (T, V) tensor.

    Z = X_tile W^T          Z -> logp, entropy -> g = dLoss/dlogp, h = dLoss/dentropy          Z <- G = dLoss/dZ
    dX_tile = G W           dW += G^T X_tile

M of the T rows are kept: masked rows never reach the head, nor do rows with A = 0 when there is neither a KL nor an entropy term, whose
gradient is exactly zero. Time scales with M.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgrpo_kernels.checks import require_finite, require_head, require_positive, require_targets_in_vocabulary
from fastgrpo_kernels.policy_loss import ObjectiveSettings, Tokens, checked_mask, checked_tokens, objective, scaled_sum
from fastgrpo_kernels.row import row_gradient_, row_stats_
from fastgrpo_kernels.stats import PolicyLossOutput, RowTerms, stats_of
from fastgrpo_kernels.tiles import head_weight, logit_tiles


def fused_linear_policy_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    advantages: Tensor,
    temperature: float,
    clip_low: float,
    clip_high: float,
    scale: Tensor | None = None,
    denominator: float | None = None,
    loss_mask: Tensor | None = None,
    old_logprobs: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    entropy_coef: float = 0.0,
    tis_cap: float | None = None,
) -> PolicyLossOutput:
    """sum over tokens of scale * (l - entropy_coef * entropy), l as in `policy_loss`, on log softmax(hidden weight^T / temperature).

    hidden (T, H) and weight (V, H) of one float dtype, rows of hidden at any stride; targets (T,) int64: hidden[t] predicts targets[t].
    The other tensors, and exactly one of scale and denominator, as in `policy_loss`; old_logprobs None says that the tokens are on-policy.
    Returns loss (), differentiable in hidden and weight, once; logprobs and entropy (T,) in nats, detached, float64 for float64 input and
    float32 otherwise, 0 in rows not computed; stats, see `stats`. Without gradients asked for, only the forward product is run.
    Extra memory: one tile of logits (48 MiB, more when 256 rows need more), the gradients, and a float32 copy of a 16-bit weight.
    Raises ValueError on bad shapes, dtypes, devices or numbers, and RuntimeError in a second backward.
    """
    require_head(hidden, weight, targets)
    require_positive("temperature", temperature)
    require_finite("entropy_coef", entropy_coef)
    settings = ObjectiveSettings(clip_low, clip_high, delta, beta, tis_cap)
    tokens = checked_tokens(hidden, settings, advantages, scale, denominator, old_logprobs, ref_logprobs, sampler_logprobs)
    mask = checked_mask(hidden, loss_mask)
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (hidden, weight)]
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        signal = mask if beta or entropy_coef else mask & (advantages != 0)
        rows = signal.nonzero().squeeze(1)
        require_targets_in_vocabulary(targets[rows], len(weight))
        made = _forward_and_gradients(hidden, weight, targets, rows, tokens, settings, temperature, entropy_coef, *wanted)
        stats = stats_of(made.terms, mask.sum()) | {"entropy_sum": made.entropy.sum(dtype=torch.float64)}
        logprobs, entropy = (column.new_zeros(len(hidden)).index_copy_(0, rows, column) for column in (made.logprobs, made.entropy))
    loss = _GradientsMade.apply(hidden, weight, made.loss, made.grad_hidden, made.grad_weight)
    return PolicyLossOutput(loss, logprobs, entropy, stats)


class _Made(NamedTuple):
    """loss (); grad_hidden (T, H) and grad_weight (V, H) or None where not wanted; the rest over the M kept rows."""

    loss: Tensor
    grad_hidden: Tensor | None
    grad_weight: Tensor | None
    logprobs: Tensor
    entropy: Tensor
    terms: RowTerms


def _forward_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    rows: Tensor,
    tokens: Tokens,
    settings: ObjectiveSettings,
    temperature: float,
    entropy_coef: float,
    want_hidden: bool,
    want_weight: bool,
) -> _Made:
    """The loop over tiles. rows (M,) are the kept ones; gradients stay in the dtype of the products until backward has scaled them."""
    head = head_weight(weight)
    kept, targets = tokens.take(rows, head.dtype), targets[rows]
    logprobs, entropy = (head.new_empty(len(rows)) for _ in range(2))
    grad_hidden = head.new_zeros(hidden.shape) if want_hidden else None
    grad_weight = torch.zeros_like(head) if want_weight else None
    for at, x, logits in logit_tiles(hidden, head, rows):
        logprobs[at], entropy[at] = row_stats_(logits, targets[at], temperature)
        if not (want_hidden or want_weight):
            continue
        tile = kept.take(at, head.dtype)
        g = tile.scale * objective(logprobs[at], tile, settings).gradient
        h = -entropy_coef * tile.scale if entropy_coef else None
        panel = row_gradient_(logits, targets[at], entropy[at], g, h, temperature)
        if grad_hidden is not None:
            grad_hidden[rows[at]] = panel @ head
        if grad_weight is not None:
            grad_weight.addmm_(panel.t(), x)
    terms = objective(logprobs, kept, settings)
    if entropy_coef:
        terms = terms._replace(loss=terms.loss - entropy_coef * entropy)
    return _Made(scaled_sum(kept.scale, terms.loss), grad_hidden, grad_weight, logprobs, entropy, terms)


class _GradientsMade(torch.autograd.Function):
    """Hands over gradients that exist already. They are scaled in place, not copied, so a second backward would return wrong ones."""

    @staticmethod
    def forward(ctx, hidden, weight, loss, grad_hidden, grad_weight):
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = hidden.dtype
        ctx.spent = False
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        if ctx.spent:
            raise RuntimeError("second backward through fused_linear_policy_loss: its gradients exist once, call it again")
        ctx.spent = True
        grad_hidden, grad_weight = (None if grad is None else grad.mul_(grad_loss).to(ctx.dtype) for grad in ctx.saved_tensors)
        return grad_hidden, grad_weight, None, None, None
