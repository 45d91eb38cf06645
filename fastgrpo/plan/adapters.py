"""LoRA in a plan: how many parameters are trained, and what their adapters keep for the backward pass."""

from __future__ import annotations

from fastgrpo.config import Config
from fastgrpo.plan.shapes import Shape


def trained_parameters(shape: Shape, config: Config) -> int:
    """All of the model's, or with LoRA those of the adapters: rank rows of the input's and columns of the output's width."""
    rank = config.learner.lora_rank
    return rank * shape.layers * sum(map(sum, _adapted(shape, config))) if rank else shape.parameters


def adapter_bytes(shape: Shape, config: Config, b: int, T: float) -> float:
    """What the adapters of one layer keep of T tokens, A x of each, less the normalised inputs that frozen norms no longer keep.

    A bound from above where only some layers get one: the inputs of the others are not needed either.
    """
    rank = config.learner.lora_rank
    return T * b * (rank * len(_adapted(shape, config)) - 2 * shape.hidden) if rank else 0


def _adapted(shape: Shape, config: Config) -> list[tuple[int, int]]:
    """Widths of input and output of each linear layer of a decoder layer that gets an adapter; what is no such layer counts nothing."""
    widths = {
        "q_proj": (shape.hidden, shape.queries),
        "k_proj": (shape.hidden, shape.keys),
        "v_proj": (shape.hidden, shape.keys),
        "o_proj": (shape.queries, shape.hidden),
        "gate_proj": (shape.hidden, shape.intermediate),
        "up_proj": (shape.hidden, shape.intermediate),
        "down_proj": (shape.intermediate, shape.hidden),
    }
    targets = config.learner.lora_targets
    return [width for name, width in widths.items() if name in targets or targets == ("all-linear",)]
