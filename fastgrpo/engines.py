"""Which learner and which rollout engine a run gets, and in which order they are built."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgrpo.config import Config, RolloutConfig
    from fastgrpo.config_pretrain import PretrainConfig
    from fastgrpo.learner import Learner
    from fastgrpo.rollout import RolloutEngine, Weights


def make_learner(config: Config | PretrainConfig, model, lr_at: Callable[[int], float] | None = None) -> Learner:
    """`lr_at` is the learning rate of each update, by default config.lr. Raises SetupError where DeepSpeed is asked for, not installed."""
    lr_at = lr_at or (lambda update: config.lr)
    if config.learner.compile:
        from fastgrpo.learner.compiled import compile_layers

        compile_layers(model)
    if config.learner.engine == "native":
        from fastgrpo.learner.native import NativeLearner
        from fastgrpo.learner.recompute import recompute_activations

        if config.learner.recompute:
            recompute_activations(model)
        return NativeLearner(model, config.loss, config.temperature, lr_at, config.grad_clip)
    from fastgrpo.learner.deepspeed import DeepSpeedLearner

    return DeepSpeedLearner(model, config.loss, config.temperature, lr_at, config.grad_clip, config.learner)


def make_both(config: Config, model, tokenizer) -> tuple[Learner, RolloutEngine]:
    """The learner comes first: an engine that shares its weights views them where the learner lays them out.

    Where it spreads them over ranks, an engine can only be sent them, and the native one samples with a copy made before. With LoRA
    `model` stays without adapters; only what learns, and samples by itself, has them.
    """
    learned, native = with_lora(config, model), config.rollout.engine == "native"
    settings, sampled, spreads = config.rollout, learned if native else model, config.learner.spreads_weights
    if spreads:
        settings = settings.model_copy(update={"weights": "push"})
        sampled = copy.deepcopy(model) if native else model
    learner = make_learner(config, learned)
    context = config.max_prompt_tokens + config.max_new_tokens
    return learner, make_engine(settings, sampled, tokenizer, context, learner.named_weights, own=not spreads)


def with_lora(config: Config | PretrainConfig, model):
    """The module that learns: `model` itself, or its twin with adapters. Raises InputError, and SetupError without peft."""
    if not config.learner.lora_rank:
        return model
    from fastgrpo.learner.lora import with_adapters

    return with_adapters(model, config.learner, config.seed)


def make_engine(settings: RolloutConfig, model, tokenizer, context: int, weights: Weights | None = None, own: bool = True) -> RolloutEngine:
    """`context` is the most tokens of prompt and response together; `weights` are read when vLLM is built, and built again: by default
    the model's own. `own` says that the model is what learns, and not a copy. Raises SetupError where vLLM cannot be used."""
    if settings.engine == "native":
        from fastgrpo.rollout.native import NativeEngine

        return NativeEngine(model, tokenizer, own)
    from fastgrpo.rollout.colocated import VllmEngine
    from fastgrpo.rollout.supervised import SupervisedEngine
    from fastgrpo.rollout.vllm_settings import VllmSettings

    sizes = VllmSettings(
        context=context,
        sequences=settings.sequences,
        cache_bytes=int(settings.cache_gib * 2**30),
        weights=settings.weights,
        tensor_parallel=settings.tensor_parallel,
        fp32_head=settings.fp32_head,
    )
    return SupervisedEngine(lambda: VllmEngine(model, tokenizer, sizes, weights), settings.deadline, settings.restarts)


def engine_lines(engine: RolloutEngine) -> list[str]:
    """How the engine gets its weights, and why; nothing for the native one, which has none of its own."""
    found = engine.metrics()
    return (
        [f"rollout engine: vllm, weights: {found['weights']} ({found['weights_why']}), cache of {found['cache_tokens']:,} tokens"]
        if found
        else []
    )
