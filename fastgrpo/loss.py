"""From the names of loss types to numbers: the constant factor of each token, and the call of the fused loss on one pack.

Dr. GRPO, GRPO and token mean differ in a per-sequence factor and in the advantages only, both known before the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from fastgrpo.types import LossOutput, PackedBatch

if TYPE_CHECKING:
    from fastgrpo.config import LossConfig


def token_scales(loss_type: str, lengths: Sequence[int], masked: Sequence[bool], max_new_tokens: int) -> list[float]:
    """The factor of every token of each of the B responses of one update: 0 for masked responses (arXiv:2503.20783, Eq. 1 and 3).

    `lengths` in tokens. dr_grpo and grpo_no_length 1/(B L), L = max_new_tokens; grpo and grpo_no_std 1/(B |o_i|); token_mean
    1/(tokens of unmasked responses). Masked responses still count in B.
    """
    count = len(lengths)
    if loss_type in ("dr_grpo", "grpo_no_length"):
        scales = [1.0 / (count * max_new_tokens)] * count
    elif loss_type in ("grpo", "grpo_no_std"):
        scales = [1.0 / (count * length) for length in lengths]
    elif loss_type == "token_mean":
        tokens = sum(length for length, hidden in zip(lengths, masked, strict=True) if not hidden)
        scales = [1.0 / max(tokens, 1)] * count
    else:
        raise ValueError(f"loss type {loss_type!r} is none of dr_grpo, grpo, grpo_no_std, grpo_no_length, token_mean")
    return [0.0 if hidden else scale for scale, hidden in zip(scales, masked, strict=True)]


def needs_all_sequences(settings: LossConfig) -> bool:
    """Whether a zero-advantage sequence still has a gradient: through the KL term or the entropy bonus."""
    return settings.beta > 0 or settings.entropy_coef != 0


def packed_loss(hidden: Tensor, weight: Tensor, batch: PackedBatch, settings: LossConfig, temperature: float) -> LossOutput:
    """The policy loss of one pack from hidden states (M, H) of its kept rows and the head (V, H)."""
    from fastgrpo_kernels import fused_linear_policy_loss

    rows = batch.loss_mask

    def kept(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[rows].to(hidden.device)

    output = fused_linear_policy_loss(
        hidden,
        weight,
        kept(batch.targets),
        advantages=kept(batch.advantages),
        scale=kept(batch.scale),
        temperature=temperature,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        delta=settings.delta,
        beta=settings.beta,
        entropy_coef=settings.entropy_coef,
        tis_cap=settings.tis_cap,
        old_logprobs=kept(batch.old_logprobs),
        ref_logprobs=kept(batch.ref_logprobs),
        sampler_logprobs=kept(batch.sampler_logprobs),
    )
    return LossOutput(output.loss, output.stats)
