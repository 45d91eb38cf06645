"""The loop of Dr. GRPO: sample groups, grade, subtract the mean, pack, update. `train` reads like the algorithm.

What would surprise: old log-probs are the learner's own, computed for all updates of a rollout before its first optimizer step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fastgrpo.checkpoint import Checkpoints
from fastgrpo.errors import HealthError, NotFinite, Preempted, SetupError
from fastgrpo.evaluate import EvaluationFailed, chosen_metric, evaluate_ways, restored, summary
from fastgrpo.experience import Experience, collect
from fastgrpo.faults import fault
from fastgrpo.health import check_grading, check_signal
from fastgrpo.learner.memory import logprobs_in_parts
from fastgrpo.metrics import experience_metrics, merge, update_metrics
from fastgrpo.progress import Progress
from fastgrpo.rollout.parity import parity, require_parity, spread
from fastgrpo.types import PackedBatch, Prompt, Sampling
from fastgrpo.updates import cut_updates, own_share

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fastgrpo.balance import Cost
    from fastgrpo.config import Config
    from fastgrpo.learner import Learner
    from fastgrpo.ranks import Ranks
    from fastgrpo.rewards import Grader, Scorer
    from fastgrpo.rollout import RolloutEngine
    from fastgrpo.run import Run


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


def train(config: Config, parts: Parts, run: Run, progress: Progress) -> dict:
    """Runs the steps that are left; returns the summary. Raises HealthError where the run cannot learn any more, and Preempted, after
    saving, where it was told to stop."""
    parts.engine.update_weights(parts.learner.named_weights())
    try:
        evaluate_and_save_when_due(config, parts, run, progress)
        while progress.step < config.steps:
            learn_step(progress.step + 1, config, parts, run, progress)
            parts.engine.update_weights(parts.learner.named_weights())
            evaluate_and_save_when_due(config, parts, run, progress)
    except Preempted as reason:
        save(parts, run, progress, needed=True)
        saved = f"{reason}: saved after step {progress.step}; go on with --resume {run.directory}"
        raise Preempted(saved) from reason
    before, after = (restored(progress.evaluations.get(name, {})) for name in ("first", "last"))
    return summary(before, after, config.steps, progress.seconds + run.stop.elapsed())


def learn_step(step: int, config: Config, parts: Parts, run: Run, progress: Progress) -> None:
    """One rollout batch and its optimizer updates. The run can be saved before the first of these and after the last."""
    experience = collect(step, config, parts.engine, parts.scorer, parts.prompts, parts.stop, run)
    run.stop_point(parts.checkpoints.seconds)
    run.write_rollouts(step, experience.groups)
    report = {
        "step": step,
        **experience_metrics(experience.groups, experience.drawn),
        **engine_report(step, experience, config, parts, run.ranks),
    }
    check_grading(experience, step, run, progress)
    with run.phase("learn"):
        budget = progress.budget(config.tokens_per_pack)
        shares = [own_share(part, config, parts.cost, run.ranks, budget) for part in cut_updates(experience.groups, step, config)]
        updates = with_other_logprobs([packs for packs, _ in shares], config, parts)
        learned = [update(packs, step, config, parts, run, progress) for packs in updates]
        learned = [report | layout for report, (_, layout) in zip(learned, shares, strict=True)]
        report |= lower_budget(step, budget, parts, run, progress)
    progress.step = step
    run.log_row(report | {"updates": learned})
    check_signal(experience, step, config, run, progress)
    run.stop_point(parts.checkpoints.seconds)


def engine_report(step: int, experience: Experience, config: Config, parts: Parts, ranks: Ranks) -> dict:
    """What the engine says of itself, and how far its log-probs are from the learner's, before the first update.

    The native engine samples with the learner's own module: there is nothing to compare. Raises HealthError where they disagree.
    """
    if config.rollout.engine == "native":
        return {}
    mine = ranks.share(experience.groups)
    pairs = spread([group.prompt for group in mine], [group.rollouts for group in mine])
    found = parity(parts.learner.logprobs, pairs, config.tokens_per_pack)
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
            packs = [batch.with_logprobs(ref_logprobs=reference_logprobs(batch, config, parts)) for batch in packs]
        filled.append(packs)
    return filled


def reference_logprobs(batch: PackedBatch, config: Config, parts: Parts) -> Tensor:
    return logprobs_in_parts(parts.reference, batch, config.temperature, parts.learner.out_of_memory)


def lower_budget(step: int, budget: int, parts: Parts, run: Run, progress: Progress) -> dict[str, int]:
    """Where passes of this step did not fit into some rank's memory, later ones are smaller, on all ranks. The report of it."""
    failed = [tokens for of_rank in run.ranks.gather(parts.learner.out_of_memory) for tokens in of_rank]
    parts.learner.out_of_memory.clear()
    if not failed:
        return {}
    progress.tokens_per_pack = max(1, min(budget, min(failed) // 2))
    run.note(
        f"step {step}: {len(failed)} passes, of {min(failed)} tokens and more, did not fit into memory and were made in parts, with the "
        f"same result; from now on tokens_per_pack is {progress.tokens_per_pack} instead of {budget}"
    )
    return {"out_of_memory": len(failed), "tokens_per_pack": progress.tokens_per_pack}


def update(packs: Sequence[PackedBatch], step: int, config: Config, parts: Parts, run: Run, progress: Progress) -> dict:
    """One optimizer update over this rank's packs; also without any, since Adam's momentum moves on. The report is of all ranks.

    An update whose gradient is not finite is skipped, by all ranks, and its packs are kept for a look; HealthError after too many.
    """
    if fault("learn", step):
        packs = [dataclasses.replace(batch, scale=batch.scale * math.nan) for batch in packs]
    try:
        stats, norm = parts.learner.update(packs)
    except NotFinite as error:
        progress.skipped_updates += 1
        where = run.dump(f"step_{step:06d}-update_{parts.learner.updates}", packs)
        run.note(f"step {step}: {error} Skipped ({progress.skipped_updates} in a row); this rank's packs are in {where}")
        if progress.skipped_updates == config.health.skipped_updates:
            raise HealthError(f"step {step}: {progress.skipped_updates} updates in a row had no finite gradient. {error}") from error
        run.ranks.gather(None)
        return update_metrics({}, 0.0, config.lr) | {"skipped": 1}
    progress.skipped_updates = 0
    return update_metrics(merge(run.ranks.gather(merge(stats))), norm, config.lr)


def evaluate_and_save_when_due(config: Config, parts: Parts, run: Run, progress: Progress) -> None:
    """After a step, while the engine holds its weights. The first and the last are always evaluated, and the last always saved."""
    step, last = progress.step, progress.step == config.steps
    if progress.evaluated < step and (step == 0 or last or (config.eval.every and step % config.eval.every == 0)):
        evaluate_now(step, config, parts, run, progress)
    if last or (step and config.checkpoint.every and step % config.checkpoint.every == 0):
        save(parts, run, progress, needed=last)


def save(parts: Parts, run: Run, progress: Progress, needed: bool = False) -> bool:
    """Whether there is a checkpoint of this step now. Raises SetupError where a `needed` one cannot be written."""
    with run.phase("save"):
        fault("save", progress.step)
        progress.rows = run.settle()
        try:
            path = parts.checkpoints.save(dataclasses.replace(progress, seconds=progress.seconds + run.stop.elapsed()))
        except SetupError as error:
            if needed:
                raise
            run.note(f"WARNING: step {progress.step}: {error}. Training goes on; the next checkpoint is tried when it is due")
            return False
    run.log(f"{path.name} was saved in {parts.checkpoints.seconds:.2f} s")
    return True


def evaluate_now(step: int, config: Config, parts: Parts, run: Run, progress: Progress) -> None:
    """Every held-out set under the engine's weights; logged as a row of its own, and the best checkpoint kept if that is asked.

    One that fails is left out, and said so; but the first is to show early what is wrong, and raises.
    """

    def stop_point() -> None:
        run.stop_point(parts.checkpoints.seconds)

    stop_point()
    with run.phase("evaluate"):
        sampled = Sampling(config.temperature, config.max_new_tokens, parts.stop)
        sets, ways = parts.held_out, config.eval.ways
        try:
            fault("evaluate", step)
            results, predictions = evaluate_ways(parts.engine, parts.grader, sets, ways, sampled, config.seed, run.ranks, stop_point)
        except EvaluationFailed as error:
            if step == 0:
                raise error.__cause__ or error from None
            run.note(f"WARNING: step {step}: the evaluation failed and is left out: {error}")
            results, predictions, sets = {}, {}, {}
    progress.evaluated = step
    if not sets:
        return
    found = {way: {name: asdict(evaluation) for name, evaluation in of_sets.items()} for way, of_sets in results.items()}
    progress.evaluations = {"first": found} | progress.evaluations | {"last": found}
    run.write_predictions(step, predictions)
    metric = chosen_metric(results, config.checkpoint.best)
    is_best = metric is not None and (progress.best is None or metric > progress.best[1])
    run.log_row({"step": step, "evaluation": found} | ({} if metric is None else {"metric": metric, "best": is_best}))
    if is_best:
        earlier, progress.best = progress.best, (step, metric)
        if not save(parts, run, progress):
            progress.best = earlier
