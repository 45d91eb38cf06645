"""The policy loss for a trainer that holds logits already: a tile of rows at a time in float32, each turned into its own gradient.

Beside the logits only their gradient is kept, in their dtype, and not even that without gradients asked for. It is made without the rows'
scale, which backward multiplies in: 1 / (responses * length) would underflow in float16.
"""

import torch
from torch import Tensor

from fastgrpo_kernels.arguments import checked_tokens, kept_rows, objective_settings
from fastgrpo_kernels.checks import (
    require_finite,
    require_logits,
    require_positive_temperatures,
    require_rows,
    require_scaling,
    require_targets_in_vocabulary,
)
from fastgrpo_kernels.gradients_made import GradientsMade
from fastgrpo_kernels.objective import ObjectiveSettings, Tokens, objective
from fastgrpo_kernels.policy_loss import scaled_sum
from fastgrpo_kernels.row import Scaling, compute_dtype, row_gradient_, row_stats_, scale_logits_
from fastgrpo_kernels.stats import STATS, PolicyLossOutput, packed_stats, unpacked_stats
from fastgrpo_kernels.tiles import tile_rows


def policy_loss_from_logits(
    logits: Tensor,
    targets: Tensor,
    *,
    temperature: float | Tensor,
    advantages: Tensor | None = None,
    grad_logprobs: Tensor | None = None,
    kind: str = "clip",
    clip_low: float | None = None,
    clip_high: float | None = None,
    scale: Tensor | None = None,
    denominator: float | None = None,
    loss_mask: Tensor | None = None,
    rows: Tensor | None = None,
    old_logprobs: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    entropy_coef: float = 0.0,
    tis_cap: float | None = None,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
) -> PolicyLossOutput:
    """sum over tokens of scale * (l - entropy_coef * entropy), as in `fused_linear_policy_loss`, from logits (T, V) of any float dtype.

    The logits are those of the head, before temperature, logit_scale and softcap, and are left as they are; -inf is allowed. Every row
    that the mask keeps is computed. Returns and raises as `fused_linear_policy_loss`; the loss is differentiable in logits, once.
    """
    require_logits(logits, targets, vocab_size)
    require_scaling(temperature, logit_scale, softcap, len(logits), logits.device)
    require_finite("entropy_coef", entropy_coef)
    require_rows(rows, loss_mask, len(logits), logits.device)
    settings = objective_settings(kind, clip_low, clip_high, delta, beta, tis_cap, tau_pos, tau_neg)
    tokens = Tokens(advantages, scale, old_logprobs, ref_logprobs, sampler_logprobs, grad_logprobs)
    tokens = checked_tokens(logits, settings, tokens, denominator)
    wanted = torch.is_grad_enabled() and logits.requires_grad
    numbers = *Scaling(temperature, logit_scale, softcap).arguments(), *settings.arguments(), entropy_coef, wanted
    loss, logprobs, entropy, packed, gradient, row_scale = _operator(
        logits.detach(), targets, loss_mask, rows, tokens.columns(), vocab_size, *numbers
    )
    loss = GradientsMade.apply("policy_loss_from_logits", loss, row_scale, logits, gradient if wanted else None)
    return PolicyLossOutput(loss, logprobs, entropy, unpacked_stats(packed, ref_logprobs, sampler_logprobs, tis_cap, entropy=True))


@torch.library.custom_op(
    "fastgrpo_kernels::policy_loss_from_logits",
    mutates_args=(),
    schema="(Tensor logits, Tensor targets, Tensor? loss_mask, Tensor? rows, Tensor?[] columns, int? vocab_size, "
    f"{Scaling.SCHEMA}, {ObjectiveSettings.SCHEMA}, float entropy_coef, bool wanted) -> "
    "(Tensor loss, Tensor logprobs, Tensor entropy, Tensor stats, Tensor dlogits, Tensor row_scale)",
)
def _operator(logits, targets, loss_mask, rows, columns, vocab_size, *numbers):
    """(loss (), logprobs (T,), entropy (T,), packed stats, dlogits without row_scale or (0,), row_scale (T,))."""
    scaling, settings = Scaling.of(*numbers[: Scaling.ARGUMENTS]), ObjectiveSettings(*numbers[Scaling.ARGUMENTS : -2])
    entropy_coef, wanted = numbers[-2:]
    dtype = compute_dtype(logits.dtype)
    rows, count = kept_rows(logits, loss_mask, rows, None)
    kept, scaling, targets = Tokens(*columns).take(rows, dtype), scaling.take(rows), targets[rows]
    gradient = torch.zeros_like(logits, memory_format=torch.contiguous_format) if wanted else logits.new_empty(0)
    logits, panels = logits[:, :vocab_size], gradient[:, :vocab_size] if wanted else None
    require_targets_in_vocabulary(targets, logits.shape[1])
    require_positive_temperatures(scaling.temperature)
    logprobs, entropy = (logits.new_empty(len(rows), dtype=dtype) for _ in range(2))
    step = tile_rows(logits.shape[1], dtype)
    for at in (slice(start, start + step) for start in range(0, len(rows), step)):
        here, tile = scaling.take(at), logits[rows[at]].to(dtype)
        slope = scale_logits_(tile, here, wanted)
        logprobs[at], entropy[at] = row_stats_(tile, targets[at])
        if wanted:
            g = objective(logprobs[at], kept.take(at, dtype), settings).gradient
            h = torch.full_like(g, -entropy_coef) if entropy_coef else None
            panels[rows[at]] = row_gradient_(tile, targets[at], entropy[at], g, h, here, slope).to(logits.dtype)
    terms = objective(logprobs, kept, settings)
    if entropy_coef:
        terms = terms._replace(loss=terms.loss - entropy_coef * entropy)
    per_token = (value.new_zeros(len(logits)).index_copy_(0, rows, value) for value in (logprobs, entropy, kept.scale))
    logprobs, entropy_of_tokens, row_scale = per_token
    stats = packed_stats(terms, count, entropy)
    return scaled_sum(kept.scale, terms.loss), logprobs, entropy_of_tokens, stats, gradient, row_scale


@_operator.register_fake
def _(logits, targets, loss_mask, rows, columns, vocab_size, *numbers):
    dtype = compute_dtype(logits.dtype)
    logprobs, entropy, row_scale = (logits.new_empty(len(logits), dtype=dtype) for _ in range(3))
    stats = logits.new_empty(STATS, dtype=torch.float64)
    return logits.new_empty((), dtype=dtype), logprobs, entropy, stats, logits.new_empty(logits.shape if numbers[-1] else 0), row_scale
