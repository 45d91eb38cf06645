"""The clipped policy-gradient objective on log-probs, with its derivative in closed form instead of through autograd.

Every loss type (Dr. GRPO, GRPO, token mean) is this one function: they differ in the advantages and in a scale per token that is known
before the first token is computed. Source: arXiv:2503.20783, Eq. 2; besides it DAPO's two clip bounds, a cap `delta` on the ratio where
A < 0 (two-sided clipping), the k3 estimator of the KL to a reference, and truncated importance sampling for a sampler that differs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgrpo_kernels.checks import TOKEN_DTYPES, require_between, require_finite, require_per_token, require_positive
from fastgrpo_kernels.stats import PolicyLossOutput, RowTerms, stats_of

_MAX_LOG_RATIO = 20.0  # nats; exp(20) times a loss is still far from overflow in float32
_MAX_REF_GAP = 40.0  # nats; exp(40) = 2e17 keeps k3 finite in float32


@dataclass(frozen=True)
class ObjectiveSettings:
    """The numbers of the objective: clip_low in [0, 1], clip_high >= 0 (infinite: no upper clip), delta > 1 + clip_high (None: no cap),
    beta >= 0, tis_cap > 0 (None: no importance weight).
    """

    clip_low: float
    clip_high: float
    delta: float | None
    beta: float
    tis_cap: float | None

    def __post_init__(self) -> None:
        require_between("clip_low", self.clip_low, 0.0, 1.0)
        require_between("clip_high", self.clip_high, 0.0, math.inf)
        if self.delta is not None and not self.delta > 1 + self.clip_high:
            raise ValueError(f"delta must exceed 1 + clip_high = {1 + self.clip_high}, got {self.delta!r}; None turns it off")
        require_finite("beta", self.beta, at_least=0.0)
        if self.tis_cap is not None:
            require_positive("tis_cap", self.tis_cap)


@dataclass(frozen=True)
class Tokens:
    """What the objective needs of each token besides its log-prob; (T,) each, the log-probs in nats, None where not given."""

    advantages: Tensor
    scale: Tensor
    old_logprobs: Tensor | None
    ref_logprobs: Tensor | None
    sampler_logprobs: Tensor | None

    def take(self, rows: Tensor | slice, dtype: torch.dtype) -> "Tokens":
        return Tokens(*(None if column is None else column[rows].to(dtype) for column in vars(self).values()))


def objective(logprobs: Tensor, tokens: Tokens, settings: ObjectiveSettings) -> RowTerms:
    """Loss l per token before its scale, g = dl/dlogprob, and the terms of the stats; all (M,), no autograd.

    l = w policy + beta k3,  policy = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r capped at delta first where A < 0,
    r = exp(new - old), k3 = exp(d) - d - 1 with d = ref - new, w = min(exp(old - sampler), tis_cap) without gradient.
    old_logprobs None means that old is new: r is exactly 1 and the policy gradient -A.
    """
    old = logprobs if tokens.old_logprobs is None else tokens.old_logprobs
    gap = logprobs - old if tokens.old_logprobs is not None else torch.zeros_like(logprobs)
    loss, gradient, clip_low, clip_high = _clipped(gap, tokens.advantages, settings)
    ref_kl = sampler_gap = tis_weight = tis_capped = None
    if tokens.sampler_logprobs is not None:
        sampler_gap = (logprobs - tokens.sampler_logprobs).abs()
    if settings.tis_cap is not None:
        uncapped = (old - tokens.sampler_logprobs).exp()
        tis_weight, tis_capped = uncapped.clamp(max=settings.tis_cap), uncapped > settings.tis_cap
        loss, gradient = loss * tis_weight, gradient * tis_weight
    if tokens.ref_logprobs is not None:
        ref_gap = tokens.ref_logprobs - logprobs
        d = ref_gap.clamp(-_MAX_REF_GAP, _MAX_REF_GAP)
        ref_kl = d.expm1() - d
        if settings.beta:
            loss = loss + settings.beta * ref_kl
            gradient = gradient - settings.beta * torch.where(ref_gap.abs() <= _MAX_REF_GAP, d.expm1(), 0.0)
    log_ratio = gap.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return RowTerms(loss, gradient, log_ratio, -gap, clip_low, clip_high, ref_kl, sampler_gap, tis_weight, tis_capped)


def _clipped(gap: Tensor, advantages: Tensor, settings: ObjectiveSettings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Policy term and derivative from new - old. On a bound itself the derivative is the inner one, as autograd has it."""
    ratio = gap.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
    lower, upper = 1 - settings.clip_low, 1 + settings.clip_high
    cap = math.inf if settings.delta is None else settings.delta
    gains, loses = advantages > 0, advantages < 0
    clip_high = gains & (ratio > upper)
    clip_low = loses & (ratio < lower)
    flat = clip_high | clip_low | (loses & (ratio > cap)) | (gap.abs() > _MAX_LOG_RATIO)
    effective = torch.where(gains, ratio.clamp(max=upper), ratio.clamp(min=lower, max=cap))
    signal = gains | loses  # A = 0 gives 0 even where the ratio is not a number
    loss = torch.where(signal, -advantages * effective, 0.0)
    gradient = torch.where(signal & ~flat, -advantages * ratio, 0.0)
    return loss, gradient, clip_low, clip_high


def policy_loss(
    logprobs: Tensor,
    *,
    old_logprobs: Tensor | None,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
    scale: Tensor | None = None,
    denominator: float | None = None,
    loss_mask: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    tis_cap: float | None = None,
) -> PolicyLossOutput:
    """sum over tokens of scale * l, l as in `objective`; differentiable in logprobs, to which the gradient scale * g flows.

    logprobs (T,) float32 or float64, in nats, of the full softmax at the sampling temperature; old_logprobs, ref_logprobs,
    sampler_logprobs, advantages (T,) float32 or float64; loss_mask (T,) bool, True for response tokens. Masked entries may hold anything.
    Give exactly one of scale (T,) and denominator (> 0, the same as scale = 1 / denominator everywhere): 1 / (responses * max_new_tokens)
    is Dr. GRPO, 1 / (responses * length) GRPO. old_logprobs None says that the tokens are on-policy: ratio 1, gradient -A.
    Raises ValueError on bad shapes, dtypes or numbers, beta without ref_logprobs, tis_cap without sampler_logprobs.
    """
    require_per_token("logprobs", logprobs, len(logprobs) if logprobs.dim() else 0, logprobs.device, TOKEN_DTYPES)
    settings = ObjectiveSettings(clip_low, clip_high, delta, beta, tis_cap)
    with torch.no_grad():
        tokens = checked_tokens(logprobs, settings, advantages, scale, denominator, old_logprobs, ref_logprobs, sampler_logprobs)
        mask = checked_mask(logprobs, loss_mask)
        rows = mask.nonzero().squeeze(1)
        kept, values = tokens.take(rows, logprobs.dtype), logprobs[rows]
        terms = objective(values, kept, settings)
        loss = scaled_sum(kept.scale, terms.loss)
        gradient = torch.zeros_like(logprobs).index_copy_(0, rows, kept.scale * terms.gradient)
        seen = torch.zeros_like(logprobs).index_copy_(0, rows, values)
    return PolicyLossOutput(_Linear.apply(logprobs, loss, gradient), seen, None, stats_of(terms, mask.sum()))


class _Linear(torch.autograd.Function):
    """A loss whose gradient is already known."""

    @staticmethod
    def forward(ctx, logprobs, loss, gradient):
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss):
        return ctx.saved_tensors[0] * grad_loss, None, None


def checked_tokens(
    like: Tensor,
    settings: ObjectiveSettings,
    advantages: Tensor,
    scale: Tensor | None,
    denominator: float | None,
    old_logprobs: Tensor | None,
    ref_logprobs: Tensor | None,
    sampler_logprobs: Tensor | None,
) -> Tokens:
    """The per-token inputs, each checked against the (T,) or (T, H) tensor `like`, with denominator turned into scale."""
    count, device = len(like), like.device
    if (scale is None) == (denominator is None):
        given = "neither" if scale is None else "both"
        raise ValueError(f"give exactly one of scale (a tensor, ({count},)) and denominator (a number > 0), got {given}")
    if denominator is not None:
        require_positive("denominator", denominator)
        scale = torch.full((count,), 1.0 / denominator, dtype=torch.float64, device=device)
    if settings.beta and ref_logprobs is None:
        raise ValueError(f"ref_logprobs must be given with beta = {settings.beta}, got None; or set beta = 0")
    if settings.tis_cap is not None and sampler_logprobs is None:
        raise ValueError(f"sampler_logprobs must be given with tis_cap = {settings.tis_cap}, got None; or set tis_cap = None")
    tokens = Tokens(advantages, scale, old_logprobs, ref_logprobs, sampler_logprobs)
    for name, column in vars(tokens).items():
        if column is not None or name == "advantages":
            require_per_token(name, column, count, device, TOKEN_DTYPES)
    return tokens


def checked_mask(like: Tensor, loss_mask: Tensor | None) -> Tensor:
    if loss_mask is None:
        return torch.ones(len(like), dtype=torch.bool, device=like.device)
    require_per_token("loss_mask", loss_mask, len(like), like.device, (torch.bool,))
    return loss_mask


def scaled_sum(scale: Tensor, loss: Tensor) -> Tensor:
    """sum of scale * loss, added up in float64; () in the dtype of loss."""
    return (scale.double() * loss.double()).sum().to(loss.dtype)
