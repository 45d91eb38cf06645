"""How a token is chosen, in every engine of ours: by inverse CDF at a uniform number that belongs to the response alone.

What follows: a response depends on its seed and on nothing else, and engines that compute the same logits draw the same tokens.
What surprises: the CDF is never made whole. Weights are added up by blocks in float64, and only the block of the number is looked into.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ELEMENTS_AT_ONCE = 2**24  # bounds the temporaries to 64 MiB each: a few rows at a time where the vocabulary is large
BLOCK = 128  # divides the vocabularies of Qwen2.5 and Llama 3, whose weights then need no copy


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
    scaled = logits if temperature in (0, 1) else logits / temperature
    top = scaled.amax(-1, keepdim=True)
    weights = (scaled - top).exp_()
    unknown = weights[:, known:].sum(-1, keepdim=True, dtype=torch.float64)
    weights[:, known:] = 0
    blocks = F.pad(weights, (0, -weights.shape[1] % BLOCK)).unflatten(-1, (-1, BLOCK))  # (B, V / BLOCK, BLOCK)
    sums = blocks.sum(-1, dtype=torch.float64)
    cumulative = sums.cumsum(-1)
    if temperature == 0:
        chosen = scaled[:, :known].argmax(-1, keepdim=True)
    else:
        aim = uniform[:, None] * cumulative[:, -1:]
        block = _first_above(cumulative, aim)
        inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
        before = cumulative.gather(1, block) - sums.gather(1, block)
        chosen = (block * BLOCK + _first_above(inside, aim - before)).clamp(max=known - 1)
    logprobs = (scaled.gather(1, chosen) - top).double() - (cumulative[:, -1:] + unknown).log()
    return chosen[:, 0], logprobs[:, 0].to(logits.dtype)


def _first_above(cumulative: Tensor, aim: Tensor) -> Tensor:
    """(B, 1): where each row of `cumulative` (B, K) first exceeds `aim` (B, 1); rounding never leads past the last entry of any weight."""
    below = torch.minimum(aim, cumulative[:, -1:] * (1 - 2**-52))
    return torch.searchsorted(cumulative, below, right=True).clamp(max=cumulative.shape[1] - 1)
