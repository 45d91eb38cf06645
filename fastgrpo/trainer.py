"""The loop of Dr. GRPO: sample groups, grade, subtract the mean, pack, update. `train` reads like the algorithm.

What would surprise: old log-probs are the learner's own, computed for all updates of a rollout before its first optimizer step.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fastgrpo.checkpoint import Checkpoints
from fastgrpo.errors import HealthError
from fastgrpo.evaluate import Evaluations, chosen_metric, evaluate_ways, summary
from fastgrpo.experience import Experience, collect
from fastgrpo.faults import fault
from fastgrpo.metrics import experience_metrics, merge, update_metrics
from fastgrpo.model import model_logprobs
from fastgrpo.rollout.parity import parity, require_parity, spread
from fastgrpo.types import GRADE_STATUSES, PackedBatch, Prompt, Sampling
from fastgrpo.updates import cut_updates, own_share

if TYPE_CHECKING:
    from torch import nn

    from fastgrpo.balance import Cost
    from fastgrpo.config import Config
    from fastgrpo.learner import Learner
    from fastgrpo.ranks import Ranks
    from fastgrpo.rewards import Grader, Scorer
    from fastgrpo.rollout import RolloutEngine
    from fastgrpo.run import Run

UNSCORABLE_STEPS = 3  # steps in a row without a single reward before a run ends: a server may be away for one
GRADED_SHARE = 0.95  # of responses; below, something is wrong with grading rather than with the policy


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of. `scorer` gives rewards, `grader` judges evaluations; `held_out` maps the name of a problem set to its
    prompts; `reference` exists only with loss.beta > 0; `cost` is what a sequence costs to learn from."""

    engine: RolloutEngine
    learner: Learner
    scorer: Scorer
    grader: Grader
    prompts: Sequence[Prompt]
    held_out: Mapping[str, Sequence[Prompt]]
    reference: nn.Module | None
    cost: Cost
    stop: tuple[str, ...]
    checkpoints: Checkpoints


def train(config: Config, parts: Parts, run: Run) -> dict:
    """Runs all steps; returns the summary. Raises HealthError on a non-finite loss, or when rewards stop differing."""
    engine, learner = parts.engine, parts.learner
    health, started = Health(config, run), time.monotonic()
    engine.update_weights(learner.named_weights())
    before = evaluate_now(0, config, parts, run)
    for step in range(1, config.steps + 1):
        engine.update_weights(learner.named_weights())
        evaluate_and_save_when_due(step - 1, config, parts, run)
        experience = collect(step, config, engine, parts.scorer, parts.prompts, parts.stop, run)
        run.write_rollouts(step, experience.groups)
        report = {
            "step": step,
            **experience_metrics(experience.groups, experience.drawn),
            **engine_report(step, experience, config, parts, run.ranks),
        }
        health.check_grading(step, experience)
        with run.phase("learn"):
            shares = [own_share(part, config, parts.cost, run.ranks) for part in cut_updates(experience.groups, step, config)]
            updates = with_other_logprobs([packs for packs, _ in shares], config, parts)
            learned = [update(packs, step, learner, config.lr, run.ranks) for packs in updates]
            learned = [report | layout for report, (_, layout) in zip(learned, shares, strict=True)]
        run.log_row(report | {"updates": learned})
        health.check_signal(step, experience)
    engine.update_weights(learner.named_weights())
    after = evaluate_now(config.steps, config, parts, run)
    save(config.steps, parts, run)
    return summary(before, after, config.steps, time.monotonic() - started)


def engine_report(step: int, experience: Experience, config: Config, parts: Parts, ranks: Ranks) -> dict:
    """What the engine says of itself, and how far its log-probs are from the learner's, before the first update.

    The native engine samples with the learner's own module: there is nothing to compare. Raises HealthError where they disagree.
    """
    if config.rollout.engine == "native":
        return {}
    mine = ranks.share(experience.groups)
    found = parity(parts.learner.logprobs, spread([group.prompt for group in mine], [group.rollouts for group in mine]))
    for of_rank in ranks.gather(found):
        require_parity(step, config.dtype, of_rank)
    return {"rollout_engine": parts.engine.metrics(), "parity": asdict(found)}


def with_other_logprobs(updates: list[list[PackedBatch]], config: Config, parts: Parts) -> list[list[PackedBatch]]:
    """Adds old and reference log-probs, all before any optimizer step. The first update is on-policy: its ratio is 1 without them."""
    filled = []
    for number, packs in enumerate(updates):
        if config.old_logprobs == "sampler":
            packs = [batch.with_logprobs(old_logprobs=batch.sampler_logprobs) for batch in packs]
        elif number > 0:
            old = parts.learner.logprobs(packs)
            packs = [batch.with_logprobs(old_logprobs=logprobs) for batch, logprobs in zip(packs, old, strict=True)]
        if parts.reference is not None:
            packs = [batch.with_logprobs(ref_logprobs=model_logprobs(parts.reference, batch, config.temperature)) for batch in packs]
        filled.append(packs)
    return filled


def update(packs: Sequence[PackedBatch], step: int, learner: Learner, lr: float, ranks: Ranks) -> dict:
    """One optimizer update over this rank's packs; also without any, since Adam's momentum moves on. The report is of all ranks."""
    if fault("learn", step):
        packs = [dataclasses.replace(batch, scale=batch.scale * math.nan) for batch in packs]
    stats, norm = learner.update(packs)
    return update_metrics(merge(ranks.gather(merge(stats))), norm, lr)


def evaluate_and_save_when_due(step: int, config: Config, parts: Parts, run: Run) -> None:
    """After step `step`, while the engine holds its weights; step 0 and the last are evaluated by `train` itself."""
    if step and config.eval.every and step % config.eval.every == 0:
        evaluate_now(step, config, parts, run)
    if step and config.checkpoint.every and step % config.checkpoint.every == 0:
        save(step, parts, run)


def save(step: int, parts: Parts, run: Run) -> None:
    with run.phase("save"):
        fault("save", step)
        parts.checkpoints.save(step)


def evaluate_now(step: int, config: Config, parts: Parts, run: Run) -> Evaluations:
    """Every held-out set under the engine's weights; logged as a row of its own, and the best checkpoint kept if that is asked."""
    with run.phase("evaluate"):
        fault("evaluate", step)
        sampled = Sampling(config.temperature, config.max_new_tokens, parts.stop)
        results, predictions = evaluate_ways(parts.engine, parts.grader, parts.held_out, config.eval.ways, sampled, config.seed, run.ranks)
    if parts.held_out:
        run.write_predictions(step, predictions)
        row = {"step": step, "evaluation": {way: {name: asdict(e) for name, e in sets.items()} for way, sets in results.items()}}
        if config.checkpoint.best != "none":
            metric = chosen_metric(results, config.checkpoint.best)
            row |= {"metric": metric, "best": parts.checkpoints.keep_best(step, metric)}
        run.log_row(row)
    return results


class Health:
    """Watches over the steps of a run: says when something looks wrong, raises HealthError when going on is useless."""

    def __init__(self, config: Config, run: Run):
        self.config, self.run = config, run
        self.silent_steps = self.unscorable_steps = 0

    def check_grading(self, step: int, experience: Experience) -> None:
        statuses = [grade.status for group in experience.drawn for grade in group.grades]
        ok = statuses.count("ok") / len(statuses)
        if ok < GRADED_SHARE:
            counts = ", ".join(f"{statuses.count(status)} {status}" for status in GRADE_STATUSES if status in statuses)
            self.run.note(f"step {step}: only {ok:.0%} of the responses were graded in order: {counts}")
        self.unscorable_steps = self.unscorable_steps + 1 if statuses.count("unscorable") == len(statuses) else 0
        if self.unscorable_steps == UNSCORABLE_STEPS:
            raise HealthError(
                f"step {step}: no response got a reward for {UNSCORABLE_STEPS} steps. The first failure is in the log; "
                "try the reward function or server by itself"
            )

    def check_signal(self, step: int, experience: Experience) -> None:
        limit = self.config.health.steps_without_signal
        self.silent_steps = 0 if any(group.has_signal for group in experience.groups) else self.silent_steps + 1
        if self.silent_steps == limit:
            raise HealthError(
                f"step {step}: no group had two different rewards for {limit} steps, so nothing can be learned. "
                "Look at the rollouts: all right means too easy problems, all wrong too hard ones or a grader that reads another format"
            )
        if self.silent_steps == (limit + 1) // 2:
            self.run.note(f"step {step}: no group had two different rewards for {self.silent_steps} steps; at {limit} the run ends")
