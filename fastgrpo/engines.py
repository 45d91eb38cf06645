"""Which rollout engine a run gets. It is built before the learner: an engine that shares the learner's weights lays them out first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgrpo.config import RolloutConfig
    from fastgrpo.rollout import RolloutEngine


def make_engine(settings: RolloutConfig, model, tokenizer, context: int) -> RolloutEngine:
    """`context` is the most tokens of prompt and response together. Raises SetupError where vLLM is asked for and cannot be used."""
    if settings.engine == "native":
        from fastgrpo.rollout.native import NativeEngine

        return NativeEngine(model, tokenizer)
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
    return SupervisedEngine(lambda: VllmEngine(model, tokenizer, sizes), settings.deadline, settings.restarts)


def engine_lines(engine: RolloutEngine) -> list[str]:
    """How the engine gets its weights, and why; nothing for the native one, which has none of its own."""
    found = engine.metrics()
    return (
        [f"rollout engine: vllm, weights: {found['weights']} ({found['weights_why']}), cache of {found['cache_tokens']:,} tokens"]
        if found
        else []
    )
