"""The policy-gradient objective of a token, with its derivative in closed form instead of through autograd.

With A the advantage, r = exp(new - old) and w = min(exp(old - sampler), tis_cap) without gradient, l = w policy + beta k3 where

    kind        policy                                     its derivative in the log-prob
    clip        -min(r A, clip(r) A)                       -A r while r is inside the bound that A's sign makes active, else 0
    cispo       -min(r, 1 + clip_high) A logp              -A min(r, 1 + clip_high): the weight is a constant
    sapo        -4 / tau sigmoid(tau (r - 1)) A            -4 A s (1 - s) r,  s the sigmoid; tau_pos where A > 0, else tau_neg
    reinforce   -A logp                                    -A
    given       g logp                                     g, handed in: another trainer's own loss

and k3 = exp(d) - d - 1 with d = ref - new. A = 0 (or g = 0) gives exactly 0 whatever r is. Sources: clip arXiv:2503.20783, Eq. 2, with
DAPO's two bounds (arXiv:2503.14476) and a cap `delta` on r where A < 0; cispo arXiv:2506.13585, Eq. 4; sapo arXiv:2511.20347.
"""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from fastgrpo_kernels.checks import require_between, require_finite, require_positive
from fastgrpo_kernels.stats import RowTerms

KINDS = ("clip", "cispo", "sapo", "reinforce", "given")
MAX_LOG_RATIO = 20.0  # nats; exp(20) times a loss is still far from overflow in float32
MAX_REF_GAP = 40.0  # nats; exp(40) = 2e17 keeps k3 finite in float32


@dataclass(frozen=True)
class ObjectiveSettings:
    """The numbers of the objective: clip_low in [0, 1] (1: no lower clip), clip_high >= 0 (infinite: no upper clip), delta > 1 + clip_high
    (None: no cap), beta >= 0, tis_cap > 0 (None: no importance weight), tau_pos and tau_neg > 0.
    """

    kind: str
    clip_low: float
    clip_high: float
    delta: float | None
    beta: float
    tis_cap: float | None
    tau_pos: float
    tau_neg: float

    # The fields as an operator's arguments.
    SCHEMA: ClassVar[str] = (
        "str kind, float clip_low, float clip_high, float? delta, float beta, float? tis_cap, float tau_pos, float tau_neg"
    )

    def arguments(self) -> tuple[str | float | None, ...]:
        return tuple(getattr(self, name) for name in _SETTINGS)  # not vars(self): torch.compile of torch 2.11 does not trace that

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        require_between("clip_low", self.clip_low, 0.0, 1.0)
        require_between("clip_high", self.clip_high, 0.0, math.inf)
        if self.delta is not None and not self.delta > 1 + self.clip_high:
            raise ValueError(f"delta must exceed 1 + clip_high = {1 + self.clip_high}, got {self.delta!r}; None turns it off")
        require_finite("beta", self.beta, at_least=0.0)
        if self.tis_cap is not None:
            require_positive("tis_cap", self.tis_cap)
        require_positive("tau_pos", self.tau_pos)
        require_positive("tau_neg", self.tau_neg)


@dataclass(frozen=True)
class Tokens:
    """What the objective needs of each token besides its log-prob; (T,) each, the log-probs in nats, None where not given.

    advantages for every kind but given, which has grad_logprobs instead.
    """

    advantages: Tensor | None
    scale: Tensor
    old_logprobs: Tensor | None
    ref_logprobs: Tensor | None
    sampler_logprobs: Tensor | None
    grad_logprobs: Tensor | None = None

    def take(self, rows: Tensor | slice, dtype: torch.dtype) -> "Tokens":
        return Tokens(*(None if column is None else column[rows].to(dtype) for column in vars(self).values()))

    def columns(self) -> list[Tensor | None]:
        """The fields in order, detached: what an operator takes."""
        return [None if column is None else column.detach() for column in self.by_name().values()]

    def by_name(self) -> dict[str, Tensor | None]:
        """As vars(self), in a way that torch.compile of torch 2.11 traces."""
        return {name: getattr(self, name) for name in _TOKENS}

    def signal(self) -> Tensor:
        """(T,) bool: tokens whose policy term has a gradient at all."""
        return (self.advantages if self.grad_logprobs is None else self.grad_logprobs) != 0


_SETTINGS, _TOKENS = (tuple(field.name for field in fields(record)) for record in (ObjectiveSettings, Tokens))


def objective(logprobs: Tensor, tokens: Tokens, settings: ObjectiveSettings) -> RowTerms:
    """Loss l per token before its scale, g = dl/dlogprob, and the terms of the stats; all (M,), no autograd.

    old_logprobs None means that old is new: r is exactly 1.
    """
    old = logprobs if tokens.old_logprobs is None else tokens.old_logprobs
    gap = logprobs - old if tokens.old_logprobs is not None else torch.zeros_like(logprobs)
    log_ratio = gap.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    loss, gradient, clip_low, clip_high = _policy(logprobs, gap, log_ratio.exp(), tokens, settings)
    ref_kl = sampler_gap = tis_weight = tis_capped = None
    if tokens.sampler_logprobs is not None:
        sampler_gap = logprobs - tokens.sampler_logprobs
    if settings.tis_cap is not None:
        uncapped = (old - tokens.sampler_logprobs).exp()
        tis_weight, tis_capped = uncapped.clamp(max=settings.tis_cap), uncapped > settings.tis_cap
        signal = tokens.signal()
        loss, gradient = (torch.where(signal, term * tis_weight, 0.0) for term in (loss, gradient))
    if tokens.ref_logprobs is not None:
        ref_gap = tokens.ref_logprobs - logprobs
        d = ref_gap.clamp(-MAX_REF_GAP, MAX_REF_GAP)
        ref_kl = d.expm1() - d
        if settings.beta:
            loss = loss + settings.beta * ref_kl
            gradient = gradient - settings.beta * torch.where(ref_gap.abs() <= MAX_REF_GAP, d.expm1(), 0.0)
    return RowTerms(loss, gradient, log_ratio, -gap, clip_low, clip_high, ref_kl, sampler_gap, tis_weight, tis_capped)


def _policy(
    logprobs: Tensor, gap: Tensor, ratio: Tensor, tokens: Tokens, settings: ObjectiveSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Policy term and derivative, and where the clip acted from below and from above; gap = new - old, ratio = exp(clamped gap)."""
    never = torch.zeros_like(gap, dtype=torch.bool)
    if settings.kind == "given":
        g = tokens.grad_logprobs
        return torch.where(g != 0, g * logprobs, 0.0), g, never, never
    advantages = tokens.advantages
    signal = advantages != 0
    if settings.kind == "clip":
        return _clipped(gap, ratio, advantages, settings)
    if settings.kind == "sapo":
        tau = torch.full_like(ratio, settings.tau_neg).masked_fill(advantages > 0, settings.tau_pos)
        gate, rest = torch.sigmoid(tau * (ratio - 1)), torch.sigmoid(tau * (1 - ratio))  # rest = 1 - gate without cancellation
        loss = torch.where(signal, -4 / tau * gate * advantages, 0.0)
        live = signal & (gap.abs() <= MAX_LOG_RATIO)
        return loss, torch.where(live, -4 * advantages * gate * rest * ratio, 0.0), never, never
    weight, capped = torch.ones_like(ratio), never
    if settings.kind == "cispo":
        weight, capped = ratio.clamp(max=1 + settings.clip_high), signal & (ratio > 1 + settings.clip_high)
    gradient = torch.where(signal, -advantages * weight, 0.0)
    return torch.where(signal, gradient * logprobs, 0.0), gradient, never, capped


def _clipped(gap: Tensor, ratio: Tensor, advantages: Tensor, settings: ObjectiveSettings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The kind clip. On a bound itself the derivative is the inner one, as autograd has it."""
    lower, upper = 1 - settings.clip_low, 1 + settings.clip_high
    cap = math.inf if settings.delta is None else settings.delta
    gains, loses = advantages > 0, advantages < 0
    clip_high = gains & (ratio > upper)
    clip_low = loses & (ratio < lower)
    flat = clip_high | clip_low | (loses & (ratio > cap)) | (gap.abs() > MAX_LOG_RATIO)
    effective = torch.where(gains, ratio.clamp(max=upper), ratio.clamp(min=lower, max=cap))
    signal = gains | loses  # A = 0 gives 0 even where the ratio is not a number
    loss = torch.where(signal, -advantages * effective, 0.0)
    gradient = torch.where(signal & ~flat, -advantages * ratio, 0.0)
    return loss, gradient, clip_low, clip_high
