"""The objective on log-probs that somebody else computed: one pass over T, the gradient in closed form.

Every loss type (Dr. GRPO, GRPO, token mean) is this one function: they differ in the advantages and in a scale per token that is known
before the first token is computed. The formulas are in `objective`.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgrpo_kernels.arguments import checked_tokens, kept_rows, objective_settings
from fastgrpo_kernels.checks import TOKEN_DTYPES, require_per_token, require_rows
from fastgrpo_kernels.objective import ObjectiveSettings, Tokens, objective
from fastgrpo_kernels.stats import STATS, PolicyLossOutput, packed_stats, unpacked_stats


def policy_loss(
    logprobs: Tensor,
    *,
    old_logprobs: Tensor | None,
    advantages: Tensor | None = None,
    grad_logprobs: Tensor | None = None,
    kind: str = "clip",
    clip_low: float | None = None,
    clip_high: float | None = None,
    scale: Tensor | None = None,
    denominator: float | None = None,
    loss_mask: Tensor | None = None,
    rows: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    tis_cap: float | None = None,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
) -> PolicyLossOutput:
    """sum over tokens of scale * l, l of the kind as in `objective`; differentiable in logprobs, to which the gradient scale * g flows.

    logprobs (T,) float32 or float64, in nats, of the full softmax at the sampling temperature; old_logprobs, ref_logprobs,
    sampler_logprobs, advantages (T,) float32 or float64; loss_mask (T,) bool, True for response tokens, or instead rows (M,) int64, where
    it is True, increasing, which spares a GPU the wait for a count. Masked entries may hold anything.
    Give exactly one of scale (T,) and denominator (> 0, the same as scale = 1 / denominator everywhere): 1 / (responses * max_new_tokens)
    is Dr. GRPO, 1 / (responses * length) GRPO. old_logprobs None says that the tokens are on-policy: ratio 1, gradient -A.
    clip_low and clip_high are for kind clip, which has no default for them, clip_high for cispo too; tau_pos and tau_neg for sapo; kind
    given takes grad_logprobs (T,) = dloss/dlogprob before the scale in place of advantages, and its loss is sum of scale * g * logprob.
    Raises ValueError on bad shapes, dtypes or numbers, what the kind needs and lacks or does not read, beta without ref_logprobs, tis_cap
    without sampler_logprobs.
    """
    require_per_token("logprobs", logprobs, len(logprobs) if logprobs.dim() else 0, logprobs.device, TOKEN_DTYPES)
    settings = objective_settings(kind, clip_low, clip_high, delta, beta, tis_cap, tau_pos, tau_neg)
    tokens = Tokens(advantages, scale, old_logprobs, ref_logprobs, sampler_logprobs, grad_logprobs)
    tokens = checked_tokens(logprobs, settings, tokens, denominator)
    require_rows(rows, loss_mask, len(logprobs), logprobs.device)
    loss, gradient, seen, packed = _operator(logprobs.detach(), loss_mask, rows, tokens.columns(), *settings.arguments())
    stats = unpacked_stats(packed, ref_logprobs, sampler_logprobs, tis_cap, entropy=False)
    return PolicyLossOutput(_Linear.apply(logprobs, loss, gradient), seen, None, stats)


class _Linear(torch.autograd.Function):
    """A loss whose gradient is already known."""

    @staticmethod
    def forward(ctx, logprobs, loss, gradient):
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        return ctx.saved_tensors[0] * grad_loss, None, None


# An operator, so that torch.compile sees one node instead of a nonzero whose result it cannot know.
@torch.library.custom_op(
    "fastgrpo_kernels::policy_loss",
    mutates_args=(),
    schema=f"(Tensor logprobs, Tensor? loss_mask, Tensor? rows, Tensor?[] columns, {ObjectiveSettings.SCHEMA}) -> "
    "(Tensor loss, Tensor gradient, Tensor logprobs, Tensor stats)",
)
def _operator(
    logprobs: Tensor, loss_mask: Tensor | None, rows: Tensor | None, columns: list[Tensor | None], *numbers: str | float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    settings, tokens = ObjectiveSettings(*numbers), Tokens(*columns)
    rows, count = kept_rows(logprobs, loss_mask, rows, None)
    kept, values = tokens.take(rows, logprobs.dtype), logprobs[rows]
    terms = objective(values, kept, settings)
    gradient = torch.zeros_like(logprobs).index_copy_(0, rows, kept.scale * terms.gradient)
    seen = torch.zeros_like(logprobs).index_copy_(0, rows, values)
    return scaled_sum(kept.scale, terms.loss), gradient, seen, packed_stats(terms, count)


@_operator.register_fake
def _(logprobs, loss_mask, rows, columns, *numbers):
    stats = logprobs.new_empty(STATS, dtype=torch.float64)
    return logprobs.new_empty(()), torch.empty_like(logprobs), torch.empty_like(logprobs), stats


def scaled_sum(scale: Tensor, loss: Tensor) -> Tensor:
    """sum of scale * loss, added up in float64; () in the dtype of loss."""
    return (scale.double() * loss.double()).sum().to(loss.dtype)
