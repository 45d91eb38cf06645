"""What a machine can carry, before a run finds out: facts are read once, pure checks judge them, and each line that is no pass says
what to type.

What surprises: a verdict depends on the settings. Without vLLM the recipe tiny passes, and one with rollout.engine=vllm fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastgrpo.config import Config
from fastgrpo.doctor import backends, devices, machine, packages
from fastgrpo.doctor.facts import Facts
from fastgrpo.doctor.lines import FAIL, PASS, WARN, Line

CHECKS = (
    machine.system,
    packages.python,
    packages.torch,
    devices.cuda,
    devices.driver,
    devices.gpus,
    devices.nccl,
    devices.peer_access,
    machine.shared_memory,
    machine.limits,
    machine.memory,
    machine.disks,
    machine.workers,
    packages.transformers,
    packages.triton,
    packages.vllm,
    packages.deepspeed,
    packages.flash_attention,
    packages.peft,
    backends.attention,
    backends.rollouts,
    backends.allocator,
)


def diagnose(facts: Facts, config: Config) -> list[Line]:
    """The lines of every check, in the order of CHECKS."""
    return [line for check in CHECKS for line in check(facts, config)]


def worst(lines: Sequence[Line]) -> str:
    """The verdict over all."""
    return max((line.verdict for line in lines), key=(PASS, WARN, FAIL).index)
