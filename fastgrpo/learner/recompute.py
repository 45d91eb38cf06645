"""Activation checkpointing: each layer keeps its input only, and computes the rest again in the backward pass."""

from __future__ import annotations

from torch import nn


def recompute_activations(model: nn.Module) -> None:
    """Turns it on for a Hugging Face model. Raises ValueError where the model does not support it.

    Its layers look at `training` before they do so. Only they are set: below them dropout stays off, as log-probs must not be random.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
