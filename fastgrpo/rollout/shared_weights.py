"""One set of weights for learner and engine: the learner's parameters laid out so that each tensor of the engine is a view of them.

The engine fuses q, k, v and gate, up into one matrix each, row below row. So the members of a fused tensor stand side by side in
one flat buffer, and everything else anywhere in it. Parameters stay the same objects; only where their data lies changes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

FUSED = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}
"""Member to fused module, members in the order of their rows (vLLM's packed_modules_mapping of Llama-like models)."""

ALIGNMENT = 128  # elements between the starts of tensors, so that kernels may load 16 bytes at a time in any dtype
VOCABULARY_MULTIPLE = 64  # the engine rounds the rows of embedding and head up to this; the rest of the rows is never read


class NotShareable(ValueError):
    """Why engine and learner cannot view the same memory."""


def lay_out(model: nn.Module) -> None:
    """Moves all parameters into one flat buffer; best before an optimizer is made, though parameters stay themselves.

    Parameters that are views of a larger memory already (laid out earlier, or by a library that owns them) are left where they are.
    Raises NotShareable where those are in the wrong order, where parameters differ in dtype or device, or are sharded over ranks, and
    where they are frozen: what is trained stands beside them.
    """
    groups, parameters = _groups(model.named_parameters()), list(model.parameters())
    kinds = {f"{parameter.dtype} on {parameter.device}" for parameter in parameters}
    if not all(parameter.requires_grad for parameter in parameters):
        raise NotShareable("the weights are frozen, and adapters beside them are trained: they are merged for each push")
    if len(kinds) != 1:
        raise NotShareable(f"the parameters are of several kinds: {', '.join(sorted(kinds))}")
    if any(parameter.numel() == 0 for parameter in parameters):
        raise NotShareable("some parameters hold no data here: they are sharded over ranks")
    if any(parameter.untyped_storage().nbytes() != parameter.numel() * parameter.element_size() for parameter in parameters):
        for name, members in groups.items():
            _require_side_by_side(name, [parameter for _, parameter in members])
        return
    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    starts, end = [], 0
    members = [[parameter for _, parameter in group] for group in groups.values()]
    for group in members:
        end = _round_up(end, ALIGNMENT)
        for parameter in group:
            starts.append((parameter, end))
            rows = parameter.shape[0]
            end += parameter.numel() // rows * (_round_up(rows, VOCABULARY_MULTIPLE) if id(parameter) in embeddings else rows)
    buffer = torch.zeros(end, dtype=parameters[0].dtype, device=parameters[0].device)
    for parameter, start in starts:
        parameter.data = buffer[start : start + parameter.numel()].view(parameter.shape).copy_(parameter.detach())


def engine_views(model: nn.Module, wanted: dict[str, torch.Size]) -> dict[str, Tensor]:
    """For each tensor of the engine, by its name and shape, the view of the learner's memory that it can be.

    Raises NotShareable where a tensor is unknown, has another shape (as with tensor parallelism), or its members are not side by side.
    """
    groups = _groups(model.named_parameters())
    if groups.keys() != wanted.keys():
        different = sorted(groups.keys() ^ wanted.keys())
        raise NotShareable(f"engine and learner name their tensors differently: {', '.join(different[:6])}")
    return {name: _view(name, shape, [parameter.data for _, parameter in groups[name]]) for name, shape in wanted.items()}


def become_views(engine_model: nn.Module, learner_model: nn.Module) -> None:
    """Lets every tensor of the engine be the learner's memory; what it had itself is freed. Raises NotShareable."""
    tensors = dict(engine_model.named_parameters())
    for name, view in engine_views(learner_model, {name: tensor.shape for name, tensor in tensors.items()}).items():
        tensors[name].data = view


def require_same_memory(engine_model: nn.Module, learner_model: nn.Module) -> None:
    """Raises RuntimeError where a tensor of the engine is not, or no longer, the learner's memory."""
    tensors = dict(engine_model.named_parameters())
    views = engine_views(learner_model, {name: tensor.shape for name, tensor in tensors.items()})
    moved = [name for name, tensor in tensors.items() if tensor.data_ptr() != views[name].data_ptr()]
    if moved:
        raise RuntimeError(f"the learner's weights were moved after the rollout engine was built on them: {', '.join(moved[:5])}")


def _view(name: str, shape: torch.Size, members: list[Tensor]) -> Tensor:
    rows, first = sum(member.shape[0] for member in members), members[0]
    padded = len(members) == 1 and shape[0] == _round_up(rows, VOCABULARY_MULTIPLE)
    if shape[1:] != first.shape[1:] or not (shape[0] == rows or padded):
        raise NotShareable(f"{name} is {tuple(shape)} in the engine, {rows} rows of {tuple(first.shape[1:])} in the learner")
    _require_side_by_side(name, members)
    room = first.untyped_storage().nbytes() // first.element_size() - first.storage_offset()
    if shape.numel() > room:
        raise NotShareable(f"{name} needs {shape.numel()} elements in the engine, the learner's memory ends after {room}")
    return first.as_strided(tuple(shape), torch.empty(shape, device="meta").stride())


def _require_side_by_side(name: str, members: list[Tensor]) -> None:
    address = members[0].data_ptr()
    for member in members:
        if not member.is_contiguous() or member.data_ptr() != address:
            raise NotShareable(f"the parts of {name} are not side by side in the learner's memory")
        address += member.numel() * member.element_size()


def _groups(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Parameters by the name of the engine's tensor that they are part of, members in the order of their rows."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in parameters:
        groups.setdefault(engine_name(name), []).append((name, parameter))
    order = list(FUSED)
    for members in groups.values():
        if len(members) > 1:
            members.sort(key=lambda member: order.index(member[0].split(".")[-2]))
    return groups


def engine_name(name: str) -> str:
    """The engine's name of the tensor that holds this parameter: `...self_attn.q_proj.weight` is in `...self_attn.qkv_proj.weight`."""
    *path, module, kind = ("", *name.split("."))
    return ".".join([*path, FUSED.get(module, module), kind]).removeprefix(".")


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
