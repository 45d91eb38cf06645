"""Continual pretraining: full-token language modelling on packed texts, update after update (arXiv:2503.20783, section 3.4).

What surprises: there is no second loss. With advantage 1 and no old policy, the policy gradient of every token is the gradient of its
cross-entropy, so pretraining has the packs, learner, kernel and health checks of reinforcement learning; a step is one update.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from fastgrpo.checkpoint import Checkpoints
from fastgrpo.errors import Preempted
from fastgrpo.faults import fault
from fastgrpo.progress import Progress
from fastgrpo.trainer import lower_budget, save, update
from fastgrpo.updates import own_share
from fastgrpo.windows import Windows, draw_updates, text_sequences

if TYPE_CHECKING:
    from fastgrpo.balance import Cost
    from fastgrpo.config_pretrain import PretrainConfig
    from fastgrpo.learner import Learner
    from fastgrpo.run import Run


@dataclass(frozen=True, slots=True)
class TextParts:
    """What pretraining is made of: `updates` over `windows`, with a learning rate each; `held_out` maps a source to its windows."""

    learner: Learner
    windows: Windows
    held_out: Mapping[str, Windows]
    updates: int
    lr_at: Callable[[int], float]
    cost: Cost
    checkpoints: Checkpoints


def pretrain(config: PretrainConfig, parts: TextParts, run: Run, progress: Progress) -> dict:
    """Runs the updates that are left; returns the summary. Raises HealthError where the run cannot learn any more, and Preempted, after
    saving, where it was told to stop."""
    updates = draw_updates(parts.windows.lengths, config.epochs, config.seed, parts.updates)
    try:
        evaluate_and_save_when_due(config, parts, run, progress)
        for windows in islice(updates, progress.step, None):
            learn_update(windows, config, parts, run, progress)
            evaluate_and_save_when_due(config, parts, run, progress)
    except Preempted:
        save(parts, run, progress, needed=True)
        raise
    losses = ({name: found["loss"] for name, found in progress.evaluations.get(when, {}).items()} for when in ("first", "last"))
    return {
        "steps": parts.updates,
        "epochs": config.epochs,
        "tokens": config.epochs * parts.windows.predicted,
        "seconds": round(progress.seconds + run.stop.elapsed(), 1),
        **dict(zip(("loss_before", "loss_after"), losses, strict=True)),
    }


def learn_update(windows: Sequence[int], config: PretrainConfig, parts: TextParts, run: Run, progress: Progress) -> None:
    """One optimizer update. Its divisor is the number of its predicted tokens, over all ranks."""
    step, lr, started = progress.step + 1, parts.lr_at(parts.learner.updates), time.monotonic()
    with run.phase("learn"):
        budget = progress.budget(config.tokens_per_pack)
        sequences = text_sequences([parts.windows[window] for window in windows])
        packs, layout = own_share(sequences, config, parts.cost, run.ranks, budget)
        report = update(packs, step, config, parts, run, progress)
        memory = lower_budget(step, budget, parts, run, progress)
    tokens = sum(parts.windows.lengths[window] for window in windows)
    row = {
        "step": step,
        "loss": report["logprob_gap"] if "skipped" not in report else None,  # nats per token, see text_sequences
        "tokens": tokens,
        "tokens_per_second": round(tokens / (time.monotonic() - started)),
        "lr": lr,
        "grad_norm": report["grad_norm"],
    }
    progress.step = step
    run.log_row(row | ({"skipped": 1} if "skipped" in report else {}) | layout | memory)
    run.stop_point(parts.checkpoints.seconds)


def evaluate_and_save_when_due(config: PretrainConfig, parts: TextParts, run: Run, progress: Progress) -> None:
    """After an update. Texts held out are measured before the first and after the last in any case, and the last is always saved."""
    step, last = progress.step, progress.step == parts.updates
    if progress.evaluated < step and (step == 0 or last or (config.eval.every and step % config.eval.every == 0)):
        evaluate_now(step, config, parts, run, progress)
    if last or (step and config.checkpoint.every and step % config.checkpoint.every == 0):
        save(parts, run, progress, needed=last)


def evaluate_now(step: int, config: PretrainConfig, parts: TextParts, run: Run, progress: Progress) -> None:
    """The loss on every text held out, logged as a row of its own."""
    with run.phase("evaluate"):
        fault("evaluate", step)
        budget = progress.budget(config.tokens_per_pack)
        found = {name: held_out_loss(windows, config, parts, run, budget) for name, windows in parts.held_out.items()}
    progress.evaluated = step
    if found:
        progress.evaluations = {"first": found} | progress.evaluations | {"last": found}
        run.log_row({"step": step, "evaluation": found})


def held_out_loss(windows: Windows, config: PretrainConfig, parts: TextParts, run: Run, budget: int) -> dict[str, float]:
    """Mean cross-entropy in nats over all predicted tokens of all windows, each rank its share, and how many tokens these are."""
    sequences = text_sequences([windows[window] for window in range(len(windows))])
    packs, _ = own_share(sequences, config, parts.cost, run.ranks, budget)
    mine = [-logprobs.double().sum().item() for logprobs in parts.learner.logprobs(packs)]
    total = math.fsum(nats for of_rank in run.ranks.gather(mine) for nats in of_rank)
    return {"loss": total / windows.predicted, "tokens": windows.predicted}
