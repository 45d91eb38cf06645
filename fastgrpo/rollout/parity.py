"""The parity sentinel: do engine and learner still hold the same policy? It compares log-probs of responses that were sampled anyway.

Weights that did not arrive, a part of them left out, keys and values of older ones, a temperature forgotten: nothing else shows these
before the run is spoiled, since an engine with wrong weights still writes text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgrpo.errors import HealthError
from fastgrpo.packing import pack
from fastgrpo.types import PackedBatch, Prompt, Rollout, TrainingSequence

SEQUENCES = 8


@dataclass(frozen=True, slots=True)
class Parity:
    """|log-prob of the learner - of the engine| over some sampled tokens, in nats: its mean, and the largest."""

    mean: float
    largest: float
    tokens: int


BOUNDS = {"float32": Parity(1e-4, 2e-3, 1), "bfloat16": Parity(0.05, 5.0, 1)}
"""By dtype. Measured on the built-in base model: 7e-8 and 2e-5 in float32, 6e-4 and 0.1 in bfloat16, where single tokens may be far off."""


def spread(prompts: Sequence[Prompt], groups: Sequence[Sequence[Rollout]], count: int = SEQUENCES) -> list[tuple[Prompt, Rollout]]:
    """`count` responses, from prompts evenly over the batch and from different places in their groups."""
    chosen = sorted({k * len(prompts) // count for k in range(count)})
    return [(prompts[i], groups[i][k % len(groups[i])]) for k, i in enumerate(chosen)]


def parity(
    logprobs: Callable[[Sequence[PackedBatch]], Sequence[Tensor]], pairs: Sequence[tuple[Prompt, Rollout]], tokens_per_pack: int = 2**31
) -> Parity:
    """`logprobs` is Learner.logprobs, at the temperature that the responses were sampled at."""
    sequences = [TrainingSequence(prompt.token_ids, rollout.token_ids, rollout.logprobs, 1.0, 1.0) for prompt, rollout in pairs]
    packs = pack(sequences, tokens_per_pack)
    found = zip(logprobs(packs), packs, strict=True)
    gaps = torch.cat([(mine - batch.sampler_logprobs)[batch.loss_mask].abs() for mine, batch in found])
    return Parity(gaps.mean().item(), gaps.max().item(), len(gaps))


def require_parity(step: int, dtype: str, found: Parity) -> None:
    """Raises HealthError where the gap is past the bound of `dtype`, or not a number."""
    bound = BOUNDS[dtype]
    if not (found.mean <= bound.mean and found.largest <= bound.largest):
        raise HealthError(
            f"step {step}: the rollout engine and the learner disagree: their log-probs differ by {found.mean:.2g} nats on average and "
            f"{found.largest:.2g} at most over {found.tokens} tokens, where {dtype} allows {bound.mean:g} and {bound.largest:g}. "
            "Likely causes: weights that did not reach the engine, or not all of them; a prefix cache that was not reset; another "
            "temperature; a model that engine and learner compute differently. Nothing was trained on these responses"
        )
