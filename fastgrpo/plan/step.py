"""Seconds of a step by phase, evaluation spread over the steps, and what follows for the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastgrpo.config import Config
from fastgrpo.plan.algebra import Batch
from fastgrpo.plan.generation import generation_seconds
from fastgrpo.plan.learning import (
    communication_seconds,
    old_logprob_seconds,
    optimizer_seconds,
    reference_seconds,
    update_seconds,
)
from fastgrpo.plan.lengths import response_lengths
from fastgrpo.plan.memory import DTYPE_BYTES, shares_weights
from fastgrpo.plan.shapes import Shape
from fastgrpo.problem_sets import PRESETS


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one step by phase; `evaluation` is its share of a step. Rates count response tokens."""

    phases: Mapping[str, float]
    steps: int
    response_tokens: float
    gpus: int

    @property
    def step_seconds(self) -> float:
        return sum(self.phases.values())

    @property
    def hours(self) -> float:
        return self.step_seconds * self.steps / 3600

    @property
    def tokens_per_second_per_gpu(self) -> float:
        return self.response_tokens / self.step_seconds / self.gpus

    @property
    def generation_tokens_per_second_per_gpu(self) -> float:
        return self.response_tokens / self.phases["generation"] / self.gpus


def times(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> Times:
    refills = 1 + config.sampling.refill * assume["zero_signal"]  # groups drawn for each one kept, at most
    once = generation_seconds(shape, config, engines(config, batch.gpus), batch.prompts, batch.prompt_tokens, batch.lengths, assume)
    phases = {
        "generation": once * refills,
        "grading": assume["grading"],
        "old log-probs": old_logprob_seconds(shape, config, batch, assume),
        "reference log-probs": reference_seconds(shape, config, batch, assume),
        "forward and backward": update_seconds(shape, config, batch, assume),
        "between GPUs": communication_seconds(shape, config, batch, assume),
        "optimizer": optimizer_seconds(shape, config, batch, assume),
        "weights to the engine": hand_over_seconds(shape, config, assume),
        "evaluation": evaluation_seconds(shape, config, batch, assume) * evaluations(config) / config.steps,
        "everything else": assume["step_fixed"],
    }
    return Times({name: seconds for name, seconds in phases.items() if seconds}, config.steps, sum(batch.lengths), batch.gpus)


def engines(config: Config, gpus: int) -> int:
    """Engines that sample side by side."""
    return gpus // config.rollout.tensor_parallel if config.rollout.engine == "vllm" else gpus


def evaluations(config: Config) -> int:
    """How often a run evaluates: before, after, and every eval.every steps between."""
    between = (config.steps - 1) // config.eval.every if config.eval.every else 0
    return between + 2 if config.data.eval else 0


def evaluation_problems(config: Config, assume: Mapping[str, float]) -> int:
    known = (PRESETS[name].rows if name in PRESETS else None for name in config.data.eval)
    return sum(round(assume["eval_problems"]) if rows is None else rows for rows in known)


def evaluation_seconds(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> float:
    """Of one evaluation in all its ways."""
    problems = evaluation_problems(config, assume)
    if not problems:
        return 0.0
    lengths = response_lengths(problems, assume["mean_response_tokens"], assume["length_sigma"], config.max_new_tokens)
    once = generation_seconds(shape, config, engines(config, batch.gpus), problems, batch.prompt_tokens, lengths, assume)
    return len(config.eval.ways) * (once + assume["grading"] * problems / batch.responses)


def hand_over_seconds(shape: Shape, config: Config, assume: Mapping[str, float]) -> float:
    """None where the engine reads the learner's weights; else a copy, over the link where no GPU holds all of them."""
    if shares_weights(config):
        return 0.0
    size = DTYPE_BYTES[config.dtype] * shape.parameters
    spread = config.learner.spreads_weights
    gathered = size / (assume["link"] * assume["link_share"] * 1e9) if spread else 0.0
    return gathered + 2 * size / (assume["bandwidth"] * assume["bandwidth_share"] * 1e9)
