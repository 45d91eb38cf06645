"""Which kernel will attend to packs, what will sample, and whether the allocator of torch gets along with it."""

from __future__ import annotations

from fastgrpo.config import Config
from fastgrpo.doctor import packages
from fastgrpo.doctor.facts import Facts
from fastgrpo.doctor.lines import FAIL, PASS, WARN, Line
from fastgrpo.errors import InputError, SetupError
from fastgrpo.plan.shapes import shape_of

USUAL_HEAD = 128  # where the model's shape is not known here


def attention(facts: Facts, config: Config) -> list[Line]:
    """By the same rule as when the model is loaded."""
    if facts.attention is None:
        return []
    import torch

    from fastgrpo.attention import choose

    try:
        chosen = choose(config.learner.attention, facts.attention, getattr(torch, config.dtype), _head_dim(config))
    except InputError as error:
        return [Line("attention", FAIL, str(error).split(". Change that")[0], "learner.attention=auto, or what the reason asks for")]
    return [Line("attention", PASS, chosen.line.removeprefix("attention: "))]


def _head_dim(config: Config) -> int:
    try:
        return shape_of(config.model, {})[0].head_dim
    except InputError:
        return USUAL_HEAD


def rollouts(facts: Facts, config: Config) -> list[Line]:
    if config.rollout.engine == "native":
        return [Line("rollouts", PASS, "native: transformers' generate, on the learner's own module")]
    (version,) = packages.vllm(facts, config)
    if version.verdict == FAIL:
        return [Line("rollouts", FAIL, f"rollout.engine=vllm cannot be used: {version.check} is {version.found}", version.fix)]
    return [Line("rollouts", PASS, f"vllm, {_weights(config)}, {config.rollout.cache_gib:g} GiB of KV cache on each device")]


def _weights(config: Config) -> str:
    if config.rollout.weights != "auto":
        return f"weights: {config.rollout.weights}"
    if config.learner.spreads_weights or config.learner.lora_rank or config.rollout.tensor_parallel > 1:
        return "weights: push"
    return "weights: shared, if its model lets them"


def allocator(facts: Facts, config: Config) -> list[Line]:
    """Memory that sleeps cannot lie in segments that grow, and vLLM looks for that under the older name alone."""
    if facts.torch_error:
        return []
    from fastgrpo.rollout.process_state import ALLOCATOR_VARIABLES

    given = {name: facts.environment[name] for name in ALLOCATOR_VARIABLES if facts.environment.get(name)}
    shown = ", ".join(f"{name}={value}" for name, value in given.items()) or "torch's defaults"
    growing = [name for name, value in given.items() if _grows(name, value)]
    if growing:
        fix = f"take expandable_segments out of {' and '.join(growing)}"
        if config.rollout.engine == "vllm":
            return [Line("allocator", FAIL, f"{shown}: what sleeps for rollout.engine=vllm cannot lie in segments that grow", fix)]
        return [Line("allocator", WARN, f"{shown}: fine with native rollouts, refused by rollout.engine=vllm", fix)]
    if len(set(given.values())) > 1:
        return [Line("allocator", WARN, f"{shown}: only one of them counts", f"unset {' '.join(list(given)[1:])}")]
    return [Line("allocator", PASS, shown)]


def _grows(variable: str, value: str) -> bool:
    from fastgrpo.rollout.process_state import require_fixed_segments

    try:
        require_fixed_segments({variable: value})
    except SetupError:
        return True
    return False
