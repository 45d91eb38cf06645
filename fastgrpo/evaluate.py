"""Held-out accuracy: the same rollouts and grader as in training, with seeds of their own, so that evaluating changes no training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from fastgrpo.types import Prompt, Sampling

if TYPE_CHECKING:
    from fastgrpo.rewards import Grader
    from fastgrpo.rollout import RolloutEngine


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One response to each problem: shares of right, well-formed and truncated ones; lengths in tokens. A truncated one is never right."""

    problems: int
    accuracy: float
    formatted: float
    truncated: float
    length: float
    length_max: int


Evaluations = Mapping[str, Mapping[str, Evaluation]]
"""By problem set, then by way of drawing: "sampled" at the training temperature, or "greedy"."""


def evaluate_sets(
    engine: RolloutEngine, grader: Grader, held_out: Mapping[str, Sequence[Prompt]], sampled: Sampling, seed: int
) -> dict[str, dict[str, Evaluation]]:
    """Every problem set, both ways of drawing."""
    ways = {"sampled": sampled, "greedy": replace(sampled, temperature=0.0)}
    return {
        source: {way: evaluate(engine, grader, prompts, sampling, seed) for way, sampling in ways.items()}
        for source, prompts in held_out.items()
    }


def evaluate(engine: RolloutEngine, grader: Grader, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> Evaluation:
    """Samples and grades one response to each prompt; the seed and the prompt's id alone fix it, never the step of training."""
    seeds = [[request_seed(seed, "evaluate", prompt.id)] for prompt in prompts]
    rollouts = [group[0] for group in engine.generate(prompts, 1, sampling, seeds)]
    grades = grader.grade((rollout.text, prompt.answer) for rollout, prompt in zip(rollouts, prompts, strict=True))
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    return Evaluation(
        problems=len(prompts),
        accuracy=fmean(grade.reward * (not rollout.truncated) for grade, rollout in zip(grades, rollouts, strict=True)),
        formatted=fmean(grade.formatted for grade in grades),
        truncated=fmean(rollout.truncated for rollout in rollouts),
        length=fmean(lengths),
        length_max=max(lengths),
    )


def summary(before: Evaluations, after: Evaluations, steps: int, seconds: float) -> dict:
    """What summary.json holds: accuracies pooled over all held-out problems (None without any), and each set's own."""
    return {
        "accuracy_before": _pooled_accuracy(before, "sampled"),
        "accuracy_after": _pooled_accuracy(after, "sampled"),
        "greedy_before": _pooled_accuracy(before, "greedy"),
        "greedy_after": _pooled_accuracy(after, "greedy"),
        "problems": sum(ways["sampled"].problems for ways in after.values()),
        "steps": steps,
        "seconds": round(seconds, 1),
        "sets": {
            source: {"before": before[source]["sampled"].accuracy, "after": ways["sampled"].accuracy} for source, ways in after.items()
        },
    }


def _pooled_accuracy(evaluations: Evaluations, way: str) -> float | None:
    counts = [(ways[way].problems, ways[way].accuracy) for ways in evaluations.values()]
    total = sum(problems for problems, _ in counts)
    return sum(problems * accuracy for problems, accuracy in counts) / total if total else None


def request_seed(*parts: object) -> int:
    """A seed below 2**63 from anything printable: the same on every machine, whatever the number of ranks."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
