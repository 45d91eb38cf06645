"""torch.compile of the transformer's layers, each by itself: they are alike, so what one compiles to serves all.

What surprises: only packs take the compiled way. Generation calls the same layers, with a cache that grows by a token each time and
would compile again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from fastgrpo.errors import InputError


def compile_layers(model: nn.Module) -> None:
    """Turns it on for a Hugging Face model; its parameters keep their names. The first pack pays: seconds to a minute, once a process.

    Sizes are symbols, so that packs of any length share the code; attention stays outside of it, as a call between two compiled parts.
    Numbers differ by rounding from those of the plain layers, and may between passes with and without gradients. Weights must be whole:
    ZeRO 3 would have it compile for each layer anew. Raises InputError where transformers does not mark the layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(f"learner.compile=true, and the layers of {type(model).__name__} are not marked as such: set it to false")
    for layer in layers:
        layer.compile(dynamic=True)
        layer._compiled_call_impl = partial(_packs_only, layer._compiled_call_impl, layer._call_impl)


def _packs_only(compiled: Callable, plain: Callable, *args, **kwargs):
    """A layer's call. Torch keeps it in an attribute that copies and pickles of a module leave out."""
    return (plain if kwargs.get("cu_seq_lens_q") is None else compiled)(*args, **kwargs)
