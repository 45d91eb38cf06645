"""Activation checkpointing: each layer keeps its input only, and computes the rest again in the backward pass."""

from __future__ import annotations

from torch import nn


def recompute_activations(model: nn.Module) -> None:
    """Turns it on for a Hugging Face model. Raises ValueError where the model does not support it.

    Its layers look at `training` before they do so. Only they are set: below them dropout stays off, as log-probs must not be random.
    And only without a cache, which they would drop: generation by the same module has one.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    def unless_cached(module: nn.Module, args: tuple, kwargs: dict) -> None:
        for layer in module.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = kwargs.get("past_key_values") is None

    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.base_model.register_forward_pre_hook(unless_cached, with_kwargs=True)
