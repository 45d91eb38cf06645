"""The order of parameters in memory under which a rollout engine can view them, as fastgrpo.rollout.shared_weights asks for it."""

from __future__ import annotations

from torch import nn


def in_engine_order(model: nn.Module) -> list[nn.Parameter]:
    """The trained parameters, in the order in which DeepSpeed is to lay them out: neighbours that an engine fuses stand side by side.

    These are modules of one parent, in their own order: the weights of q, k, v, then their biases. Embedding and head come first:
    the engine's views of them are a little longer, and must end inside the buffer.
    """
    place = {id(model.get_input_embeddings().weight): 0, id(model.get_output_embeddings().weight): 1}
    groups: dict[tuple[str, ...], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        *parent, _, kind = name.split(".")
        groups.setdefault((*parent, kind), []).append(parameter)
    parameters = [parameter for group in groups.values() for parameter in group if parameter.requires_grad]
    return sorted(parameters, key=lambda parameter: place.get(id(parameter), 2))
