"""What a run will need, before a GPU is rented: amounts of a step, memory at each moment, time. Nothing here imports torch.

The formulas are pure functions; all numbers that no setting states are in `assumptions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastgrpo.config import ResolvedConfig
from fastgrpo.errors import InputError
from fastgrpo.plan.algebra import Batch, batch_of
from fastgrpo.plan.assumptions import Assumption, assumptions_for, values
from fastgrpo.plan.fit import advice
from fastgrpo.plan.memory import Row, host_bytes, memory
from fastgrpo.plan.shapes import Shape, shape_of
from fastgrpo.plan.step import Times, times


@dataclass(frozen=True, slots=True)
class Plan:
    """`rows` are the memory of one GPU, `fix` is "" where it fits, `host` the bytes offloaded over all GPUs. `hours_short` and
    `hours_long` are those of a run whose responses are half and twice as long."""

    resolved: ResolvedConfig
    gpu: str
    gpus: int
    shape: Shape
    shape_source: str
    assumptions: Mapping[str, Assumption]
    batch: Batch
    rows: list[Row]
    host: float
    fix: str
    times: Times
    hours_short: float
    hours_long: float


def make_plan(resolved: ResolvedConfig, gpu: str, gpus: int, shape_given: Mapping[str, int], assume: Sequence[str]) -> Plan:
    """Raises InputError for an unknown device, assumption or model, and for GPUs that cannot share a step."""
    if gpus < 1:
        raise InputError(f"--gpus {gpus}: it must be at least 1")
    config, assumptions = resolved.config, assumptions_for(gpu, assume, resolved.config.max_new_tokens)
    number = values(assumptions)
    shape, source = shape_of(config.model, dict(shape_given))
    batch = batch_of(config, gpus, number)

    def hours(factor: float) -> float:
        other = number | {"mean_response_tokens": factor * number["mean_response_tokens"]}
        return times(shape, config, batch_of(config, gpus, other), other).hours

    return Plan(
        resolved=resolved,
        gpu=gpu,
        gpus=gpus,
        shape=shape,
        shape_source=source,
        assumptions=assumptions,
        batch=batch,
        rows=memory(shape, config, batch, number),
        host=host_bytes(shape, config),
        fix=advice(shape, config, gpus, number),
        times=times(shape, config, batch, number),
        hours_short=hours(0.5),
        hours_long=hours(2.0),
    )
