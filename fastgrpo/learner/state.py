"""What the next update depends on, whole and by the names of parameters: it outlives the number of ranks, and the engine, that made it.

`master/NAME` are the weights in the optimizer's precision, `exp_avg/NAME` and the like the optimizer's own. DeepSpeed keeps slices of
them in flat buffers; here they are put together, and taken apart again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from fastgrpo.errors import InputError

Named = Sequence[tuple[str, Tensor]]


def state_of(masters: Named, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Live tensors, of an optimizer that holds each named master whole."""
    for name, master in masters:
        yield f"master/{name}", master.detach()
        for kind, value in optimizer.state.get(master, {}).items():
            yield f"{kind}/{name}", torch.as_tensor(value)


@torch.no_grad()
def load_state(masters: Named, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Undoes state_of. Raises InputError where a master is missing or has another shape."""
    kinds = _kinds(state)
    require_state({name: master.shape for name, master in masters}, state)
    for name, master in masters:
        master.copy_(state[f"master/{name}"])
        found = {kind: state[f"{kind}/{name}"] for kind in kinds if f"{kind}/{name}" in state}
        optimizer.state[master] = {
            kind: value.to(master.device if value.numel() > 1 else "cpu", copy=True) for kind, value in found.items()
        }


def spread_state_of(parameters: Named, masters: Sequence[Tensor], engine) -> Iterator[tuple[str, Tensor]]:
    """Of DeepSpeed's `engine` at ZeRO 1 to 3, with its flat `masters`: every rank iterates to the end, and is given each tensor whole."""
    found = engine.optimizer.optimizer.state.get(masters[0], {})
    for name, parameter in parameters:
        yield f"master/{name}", _whole(parameter, None)
        for kind, value in found.items():
            yield f"{kind}/{name}", value if _is_count(value) else _whole(parameter, kind)


@torch.no_grad()
def load_spread_state(parameters: Named, masters: Sequence[Tensor], engine, state: Mapping[str, Tensor]) -> None:
    """Undoes spread_state_of, on any number of ranks and at any of these stages. Raises InputError as load_state does."""
    optimizer, kinds = engine.optimizer, _kinds(state)
    require_state({name: getattr(parameter, "ds_shape", parameter.shape) for name, parameter in parameters}, state)
    first = parameters[0][0]
    for master in masters:
        found = {kind: state[f"{kind}/{first}"] for kind in kinds}
        optimizer.optimizer.state[master] = {k: v.clone() if _is_count(v) else torch.zeros_like(master) for k, v in found.items()}
    if kinds and hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):  # as its first step would do
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()
    for name, parameter in parameters:
        _set_slice(optimizer, parameter, state[f"master/{name}"], None)
        for kind in kinds:
            if not _is_count(state[f"{kind}/{name}"]):
                _set_slice(optimizer, parameter, state[f"{kind}/{name}"], kind)


def _whole(parameter: nn.Parameter, kind: str | None) -> Tensor:
    if hasattr(parameter, "ds_id"):  # ZeRO 3
        return parameter._z3_optimizer.get_full_hp_param(parameter, kind)
    return parameter.get_full_hp_param(kind)


def _set_slice(optimizer, parameter: nn.Parameter, value: Tensor, kind: str | None) -> None:
    """This rank's part of a whole tensor. DeepSpeed's own way, at ZeRO 3, wants sizes that the number of ranks divides."""
    if not hasattr(parameter, "ds_id"):
        parameter.set_full_hp_param(value, kind)
        return
    part, _ = optimizer._get_fp32_opt_state_partition(parameter, release_swap_buffers=False, optim_state_key=kind)
    start = dist.get_rank() * part.numel()
    own = value.flatten()[start : start + part.numel()]
    part.copy_(F.pad(own, (0, part.numel() - own.numel())))


def require_state(shapes: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]) -> None:
    """Raises InputError unless every parameter's master is there in its shape, and no other's."""
    names = {key.removeprefix("master/") for key in state if key.startswith("master/")}
    wrong = names ^ set(shapes) or {name for name, shape in shapes.items() if state[f"master/{name}"].shape != tuple(shape)}
    if wrong:
        raise InputError(f"the checkpoint is of another model: {len(wrong)} weights differ in name or shape, among them {min(wrong)}")


def _kinds(state: Mapping[str, Tensor]) -> list[str]:
    return sorted({key.partition("/")[0] for key in state} - {"master"})


def _is_count(value: Tensor) -> bool:
    """A number of steps, the same for all parameters."""
    return value.dim() == 0
