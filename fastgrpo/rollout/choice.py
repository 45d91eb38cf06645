"""How a token is chosen, in every engine of ours: by inverse CDF at a uniform number that belongs to the response alone.

What follows: a response depends on its seed and on nothing else, and engines that compute the same logits draw the same tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

ELEMENTS_AT_ONCE = 2**24  # bounds the float64 temporaries to 128 MiB each: a few rows at a time where the vocabulary is large


def uniform_numbers(seed: int, count: int) -> Tensor:
    """(count,) float64 in [0, 1) on the CPU: number k draws token k of the response with this seed."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def choose_tokens(logits: Tensor, temperature: float, uniforms: Tensor, known: int) -> tuple[Tensor, Tensor]:
    """Next token of each row, of the first `known` ids only, and its log-prob under the softmax over all V at this temperature.

    logits (B, V) float32 or float64; uniforms (B,) float64 on the same device. Temperature 0 takes the likeliest id and reports its
    log-prob at temperature 1. Returns ids (B,) int64 and log-probs (B,) in nats, of the logits' dtype.
    """
    size = max(1, ELEMENTS_AT_ONCE // logits.shape[1])
    parts = zip(logits.split(size), uniforms.split(size), strict=True)
    chosen, logprobs = zip(*(_choose(rows, temperature, uniform, known) for rows, uniform in parts), strict=True)
    return torch.cat(chosen), torch.cat(logprobs)


def _choose(logits: Tensor, temperature: float, uniform: Tensor, known: int) -> tuple[Tensor, Tensor]:
    logprobs = (logits / (temperature or 1.0)).log_softmax(-1)
    allowed = logprobs[:, :known]
    if temperature == 0:
        chosen = allowed.argmax(-1)
    else:
        cumulative = allowed.double().exp().cumsum(-1)
        chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0].clamp(max=known - 1)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0]
