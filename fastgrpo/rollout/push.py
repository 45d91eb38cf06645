"""Checks a stream of weights on its way into the engine, which itself takes a missing part of a fused tensor without a word.

The stream is checked as it flows, since sharded weights exist only while they pass; until it ended well, the engine refuses to sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class PushError(RuntimeError):
    """Weights that do not match the model: which, and how."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The names and shapes of a complete push; `aliases` are second names of tied weights, which need not be sent."""

    shapes: Mapping[str, torch.Size]
    aliases: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> Expected:
        """Of a model and all that its learner would send: where it is spread over ranks, it does not know its own shapes."""
        shapes = {name: tensor.shape for name, tensor in weights}
        every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        return cls(shapes, frozenset(every - shapes.keys()))


class Stream:
    """Iterates over (name, tensor), each once and of its shape, and counts `bytes`. Raises PushError at the first wrong or missing one."""

    def __init__(self, weights: Iterable[tuple[str, Tensor]], expected: Expected):
        self.weights, self.expected, self.bytes = weights, expected, 0

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        missing = dict(self.expected.shapes)
        for name, tensor in self.weights:
            if name in self.expected.aliases:
                continue
            shape = missing.pop(name, None)
            if shape is None:
                why = "came twice" if name in self.expected.shapes else "is unknown to the engine"
                raise PushError(f"push of weights: {name} {why}")
            if tensor.shape != shape:
                raise PushError(f"push of weights: {name} has shape {tuple(tensor.shape)}, the engine wants {tuple(shape)}")
            self.bytes += tensor.numel() * tensor.element_size()
            yield name, tensor.detach()
        if missing:
            raise PushError(f"push of weights: {len(missing)} of {len(self.expected.shapes)} are missing: {', '.join([*missing][:5])}")
