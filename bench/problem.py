"""The tensors that every contestant gets, and the float64 truth that their errors are measured against.

S sequences of equal length, one advantage each, some of them 0: what a pack holds after grading. `reference` defines both operations:
the clipped policy loss, and cross-entropy, which is the same gradient with advantage 1 and no old policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fastgrpo_kernels import reference

CLIP = {"clip_low": 0.2, "clip_high": 0.2}


@dataclass(frozen=True)
class Shape:
    """tokens = sequences * length (rows), width H, vocabulary V; `silent` is the share of sequences with zero advantage."""

    tokens: int
    width: int
    vocabulary: int
    silent: float = 0.0
    length: int = 64

    def __str__(self) -> str:
        return f"{self.tokens}x{self.width}x{self.vocabulary}" + (f", {self.silent:.0%} silent" if self.silent else "")


@dataclass(eq=False)
class Problem:
    """hidden (T, H), weight (V, H) leaves that want gradients; targets (T,) int64; advantages, old_logprobs (T,) float32."""

    shape: Shape
    hidden: Tensor
    weight: Tensor
    targets: Tensor
    advantages: Tensor
    old_logprobs: Tensor

    @property
    def denominator(self) -> float:
        return float(self.shape.tokens)

    def clear(self) -> None:
        self.hidden.grad = self.weight.grad = None


@lru_cache(maxsize=1)  # contestants follow one another on the same tensors
def make_problem(shape: Shape, device: str, dtype: torch.dtype) -> Problem:
    generator = torch.Generator(device).manual_seed(0)
    on = {"device": device, "generator": generator}
    hidden = torch.randn(shape.tokens, shape.width, **on).to(dtype).requires_grad_()
    weight = (torch.randn(shape.vocabulary, shape.width, **on) * shape.width**-0.5).to(dtype).requires_grad_()
    targets = torch.randint(shape.vocabulary, (shape.tokens,), **on)
    sequences = shape.tokens // shape.length
    advantages = torch.randn(sequences, **on)
    advantages[: int(shape.silent * sequences)] = 0
    with torch.no_grad():
        parts = [
            reference.token_logprobs(hidden[start : start + 1024].float() @ weight.float().T, targets[start : start + 1024], 1.0)
            for start in range(0, shape.tokens, 1024)
        ]
    old = torch.cat(parts) + 0.1 * torch.randn(shape.tokens, **on)
    return Problem(shape, hidden, weight, targets, advantages.repeat_interleave(shape.length), old)


@lru_cache(maxsize=1)
def truth(problem: Problem, operation: str) -> tuple[Tensor, Tensor]:
    """dHidden and dWeight in float64, a slice of rows at a time."""
    weight = problem.weight.detach().double().requires_grad_()
    hidden = problem.hidden.detach().double().requires_grad_()
    for start in range(0, problem.shape.tokens, 256):
        rows = slice(start, start + 256)
        logprobs = reference.token_logprobs(hidden[rows] @ weight.T, problem.targets[rows], 1.0)
        if operation == "policy loss":
            old, advantages = problem.old_logprobs[rows].double(), problem.advantages[rows].double()
            losses = reference.token_losses(logprobs, old_logprobs=old, advantages=advantages, **CLIP)
        else:
            losses = -logprobs
        (losses.sum() / problem.denominator).backward()
    return hidden.grad, weight.grad
