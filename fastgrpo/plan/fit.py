"""Does it fit, and if not, which setting to change first: tried one by one, the cheapest first, then one on top of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastgrpo.config import Config
from fastgrpo.errors import InputError
from fastgrpo.plan.algebra import batch_of
from fastgrpo.plan.assumptions import GIB
from fastgrpo.plan.memory import memory, total
from fastgrpo.plan.shapes import Shape

MOST_GPUS = 1024
Settings = dict[str, object]
"""New values by dotted key."""


def headroom(shape: Shape, config: Config, gpus: int, assume: Mapping[str, float]) -> float:
    """Bytes that stay free on a GPU at the fullest moment; negative where it does not fit."""
    return assume["memory"] * GIB - max(total(memory(shape, config, batch_of(config, gpus, assume), assume)).values())


def advice(shape: Shape, config: Config, gpus: int, assume: Mapping[str, float]) -> str:
    """One line: "" where it fits, else what to change first."""

    def room(settings: Settings, count: int = gpus) -> float:
        return headroom(shape, changed(config, settings), count, assume)

    if room({}) >= 0:
        return ""
    steps = [settings for settings in _steps(config, gpus) if _computed(changed(config, settings))]
    for settings in steps:
        if room(settings) >= 0:
            return f"set {_written(settings)}"
    together: Settings = {}
    for settings in steps * 3:  # what did not help at first may, once another moment is the fullest
        if room(together | settings) > room(together):
            together |= settings
        if room(together) >= 0:
            return f"no one setting is enough, set {_written(together)}"
    count = gpus
    while (count := 2 * count) <= MOST_GPUS:
        try:
            if room(together, count) >= 0:
                return f"{gpus} are too few, take --gpus {count}{' and set ' if together else ''}{_written(together)}"
        except InputError:  # so many cannot share a step
            break
    return "no setting makes it fit: take a smaller model, a GPU with more memory, or shorter responses in smaller packs"


def changed(config: Config, settings: Settings) -> Config:
    """The config with other values, which are not checked again."""
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        update = {section: getattr(config, section).model_copy(update={name: value})} if section else {name: value}
        config = config.model_copy(update=update)
    return config


def _computed(config: Config) -> bool:
    return config.learner.engine == "native" or not config.learner.refusal(config.dtype)


def _steps(config: Config, gpus: int) -> Iterator[Settings]:
    learner, rollout = config.learner, config.rollout
    deepspeed: Settings = {"learner.engine": "deepspeed"} if learner.engine == "native" else {}
    pushed: Settings = {"rollout.weights": "push"} if rollout.weights == "shared" else {}
    if rollout.engine == "vllm" and rollout.cache_gib > 8:
        yield {"rollout.cache_gib": 8.0}
    if not learner.recompute:
        yield {"learner.recompute": True}
    for tokens in (16384, 8192, 4096):
        if config.max_prompt_tokens + config.max_new_tokens <= tokens < config.tokens_per_pack:
            yield {"tokens_per_pack": tokens}
    for zero in (2, 3):
        if gpus > 1 and (deepspeed or learner.zero < zero):
            yield deepspeed | {"learner.zero": zero} | (pushed if zero == 3 else {})
    if learner.offload == "none" or deepspeed:
        yield deepspeed | ({} if learner.zero else {"learner.zero": 1}) | {"learner.offload": "optimizer"}
    if rollout.engine == "vllm" and rollout.tensor_parallel == 1 and gpus % 2 == 0:
        yield {"rollout.tensor_parallel": 2} | pushed
    if rollout.engine == "vllm" and rollout.cache_gib > 2:
        yield {"rollout.cache_gib": 2.0}


def _written(settings: Settings) -> str:
    return " ".join(f"{key}={str(value).lower()}" for key, value in settings.items())
