"""The loop of Dr. GRPO: sample groups, grade, subtract the mean, pack, update. `train` reads like the algorithm.

What would surprise: old log-probs are the learner's own, computed for all updates of a rollout before its first optimizer step.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fastgrpo.advantages import group_advantages, group_rewards
from fastgrpo.data import draw_prompts
from fastgrpo.errors import HealthError
from fastgrpo.evaluate import Evaluations, evaluate_sets, request_seed, summary
from fastgrpo.faults import fault
from fastgrpo.loss import needs_all_sequences, token_scales
from fastgrpo.metrics import merge, rollout_metrics, update_metrics
from fastgrpo.model import DTYPES, model_logprobs
from fastgrpo.packing import pack
from fastgrpo.types import PackedBatch, Prompt, Rollout, Sampling, ScoredGroup, TrainingSequence

if TYPE_CHECKING:
    from torch import nn

    from fastgrpo.config import Config
    from fastgrpo.learner import Learner
    from fastgrpo.rewards import Grader
    from fastgrpo.rollout import RolloutEngine
    from fastgrpo.run import Run


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of. `held_out` maps the name of a problem set to its prompts; `reference` exists only with loss.beta > 0."""

    engine: RolloutEngine
    learner: Learner
    grader: Grader
    prompts: Sequence[Prompt]
    held_out: Mapping[str, Sequence[Prompt]]
    reference: nn.Module | None
    stop: tuple[str, ...]
    save: Callable[[int], object]


def train(config: Config, parts: Parts, run: Run) -> dict:
    """Runs all steps; returns the summary. Raises HealthError on a non-finite loss, or when rewards stop differing."""
    engine, learner = parts.engine, parts.learner
    sampling = Sampling(config.temperature, config.max_new_tokens, parts.stop)
    silent_steps, started = 0, time.monotonic()
    engine.update_weights(learner.named_weights())
    before = evaluate_now(0, config, parts, run)
    for step in range(1, config.steps + 1):
        engine.update_weights(learner.named_weights())
        evaluate_and_save_when_due(step - 1, config, parts, run)
        with run.phase("sample"):
            fault("sample", step)
            prompts = draw_prompts(parts.prompts, config.prompts_per_step, step, config.seed)
            rollouts = sample_groups(prompts, step, config, parts, sampling)
        with run.phase("grade"):
            fault("grade", step)
            groups = score_groups(prompts, rollouts, parts.grader, config)
            run.write_rollouts(step, groups)
        with run.phase("learn"):
            updates = with_other_logprobs(pack_updates(groups, step, config), config, parts)
            learned = [update(packs, step, learner, config.lr) for packs in updates]
        run.log_row({"step": step, **rollout_metrics(groups), "updates": learned})
        silent_steps = 0 if any(any(group.advantages) for group in groups) else silent_steps + 1
        check_signal(silent_steps, step, config)
    engine.update_weights(learner.named_weights())
    after = evaluate_now(config.steps, config, parts, run)
    save(config.steps, parts, run)
    return summary(before, after, config.steps, time.monotonic() - started)


def sample_groups(prompts: Sequence[Prompt], step: int, config: Config, parts: Parts, sampling: Sampling) -> list[tuple[Rollout, ...]]:
    """G responses to each prompt; each goes to the grader as it ends."""

    def submit(i: int, j: int, rollout: Rollout) -> None:
        parts.grader.submit((i, j), rollout.text, prompts[i].answer)

    seeds = [
        [request_seed(config.seed, step, i, prompt.id, j) for j in range(config.samples_per_prompt)] for i, prompt in enumerate(prompts)
    ]
    rollouts = parts.engine.generate(prompts, config.samples_per_prompt, sampling, seeds, on_finished=submit)
    parts.engine.sleep()
    return rollouts


def score_groups(prompts: Sequence[Prompt], rollouts: Sequence[tuple[Rollout, ...]], grader: Grader, config: Config) -> list[ScoredGroup]:
    """Collects the grades of all submitted responses and turns each group's rewards into advantages."""
    grades, groups = grader.results(), []
    for i, (prompt, group) in enumerate(zip(prompts, rollouts, strict=True)):
        verdicts = tuple(grades[i, j] for j in range(len(group)))
        rewards = group_rewards(verdicts, group, config.loss.truncation, config.max_new_tokens)
        groups.append(ScoredGroup(prompt, group, verdicts, rewards, group_advantages(rewards, config.loss.type)))
    return groups


def pack_updates(groups: Sequence[ScoredGroup], step: int, config: Config) -> list[list[PackedBatch]]:
    """The packs of each optimizer update: responses permuted, cut into equal parts, each with its complete divisor.

    Sequences without gradient (masked, or of zero advantage when nothing else pulls) are dropped after the divisor is known.
    """
    responses = [(group, j) for group in groups for j in range(len(group.rollouts))]
    random.Random(f"{config.seed}/permute {step}").shuffle(responses)
    size = len(responses) // config.updates_per_rollout
    keep_all = needs_all_sequences(config.loss)
    updates = []
    for start in range(0, len(responses), size):
        part = [(group.prompt, group.rollouts[j], group.advantages[j]) for group, j in responses[start : start + size]]
        lengths = [len(rollout.token_ids) for _, rollout, _ in part]
        masked = [config.loss.truncation == "mask" and rollout.truncated for _, rollout, _ in part]
        scales = token_scales(config.loss.type, lengths, masked, config.max_new_tokens)
        sequences = [
            TrainingSequence(prompt.token_ids, rollout.token_ids, rollout.logprobs, advantage, scale)
            for (prompt, rollout, advantage), scale in zip(part, scales, strict=True)
            if keep_all or (advantage != 0 and scale != 0)
        ]
        updates.append(pack(sequences, config.tokens_per_pack, _token_dtype(config.dtype)))
    return updates


def with_other_logprobs(updates: list[list[PackedBatch]], config: Config, parts: Parts) -> list[list[PackedBatch]]:
    """Adds old and reference log-probs, all before any optimizer step. The first update is on-policy: its ratio is 1 without them."""
    filled = []
    for number, packs in enumerate(updates):
        if config.old_logprobs == "sampler":
            packs = [batch.with_logprobs(old_logprobs=batch.sampler_logprobs) for batch in packs]
        elif number > 0:
            packs = [batch.with_logprobs(old_logprobs=parts.learner.logprobs(batch)) for batch in packs]
        if parts.reference is not None:
            packs = [batch.with_logprobs(ref_logprobs=model_logprobs(parts.reference, batch, config.temperature)) for batch in packs]
        filled.append(packs)
    return filled


def update(packs: Sequence[PackedBatch], step: int, learner: Learner, lr: float) -> dict:
    """One optimizer update over its packs; also without any, since Adam's momentum moves on."""
    if fault("learn", step):
        packs = [dataclasses.replace(batch, scale=batch.scale * math.nan) for batch in packs]
    stats = merge(learner.backward(batch) for batch in packs)
    return update_metrics(stats, learner.step(), lr)


def evaluate_and_save_when_due(step: int, config: Config, parts: Parts, run: Run) -> None:
    """After step `step`, while the engine holds its weights; step 0 and the last are evaluated by `train` itself."""
    if step and config.eval.every and step % config.eval.every == 0:
        evaluate_now(step, config, parts, run)
    if step and config.checkpoint.every and step % config.checkpoint.every == 0:
        save(step, parts, run)


def save(step: int, parts: Parts, run: Run) -> None:
    with run.phase("save"):
        fault("save", step)
        parts.save(step)


def evaluate_now(step: int, config: Config, parts: Parts, run: Run) -> Evaluations:
    """Every held-out set under the engine's weights; logged as a row of its own."""
    with run.phase("evaluate"):
        fault("evaluate", step)
        sampled = Sampling(config.temperature, config.max_new_tokens, parts.stop)
        results = evaluate_sets(parts.engine, parts.grader, parts.held_out, sampled, config.seed)
    if results:
        run.log_row({"step": step, "evaluation": {source: {way: asdict(e) for way, e in ways.items()} for source, ways in results.items()}})
    return results


def check_signal(silent_steps: int, step: int, config: Config) -> None:
    if silent_steps >= config.health.steps_without_signal:
        raise HealthError(
            f"step {step}: no group had two different rewards for {silent_steps} steps, so nothing can be learned. "
            "Look at the rollouts: all right means too easy problems, all wrong too hard ones or a grader that reads another format"
        )


def _token_dtype(dtype: str):
    """Advantages and log-probs travel in float32, in float64 for a float64 model."""
    return DTYPES["float64" if dtype == "float64" else "float32"]
