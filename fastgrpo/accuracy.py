"""From graded responses to numbers: accuracy with its interval, unbiased pass@k, lengths; over one problem set and over several."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from fastgrpo.types import Answer, Completion, FinishReason, Grade, GradeStatus, Rollout

Z_95 = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Prediction:
    """One graded response of an evaluation: a row of its parquet file. `length` in tokens; `right` follows the rule for truncated ones."""

    set: str
    id: str
    sample: int
    problem: str
    answer: Answer
    text: str
    length: int
    finish_reason: FinishReason
    formatted: bool
    grading: GradeStatus
    right: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`samples` responses to each of `problems` problems: shares of right ones (avg@n) with a 95 % interval, pass@k by k,
    shares of well-formed and truncated ones, lengths in tokens, grader's statuses."""

    problems: int
    samples: int
    accuracy: float
    low: float
    high: float
    pass_at: Mapping[int, float]
    formatted: float
    truncated: float
    length: float
    length_max: int
    grading: Mapping[GradeStatus, int]


def predict(set_name: str, prompt, sample: int, response: Completion | Rollout, grade: Grade, keep_truncated: bool) -> Prediction:
    """A response with its grade. A truncated one is wrong whatever its text says, unless `keep_truncated`."""
    right = grade.reward == 1 and (keep_truncated or not response.truncated)
    where = (set_name, prompt.id, sample, prompt.problem, prompt.answer)
    return Prediction(*where, response.text, response.length, response.finish_reason, grade.formatted, grade.status, right)


def measure(predictions: Sequence[Prediction]) -> Evaluation:
    """The numbers of one problem set. Raises ValueError unless every problem has equally many predictions, at least one."""
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for prediction in predictions:
        outcomes[prediction.id].append(prediction.right)
    counts = {len(found) for found in outcomes.values()}
    if len(counts) != 1:
        raise ValueError(f"measure: problems have {sorted(counts) or 'no'} predictions each; every problem needs equally many")
    (samples,) = counts
    lengths = [prediction.length for prediction in predictions]
    low, high = interval([fmean(found) for found in outcomes.values()], samples)
    return Evaluation(
        problems=len(outcomes),
        samples=samples,
        accuracy=fmean(prediction.right for prediction in predictions),
        low=low,
        high=high,
        pass_at={k: fmean(pass_at_k(samples, sum(found), k) for found in outcomes.values()) for k in powers_of_two(samples)},
        formatted=fmean(prediction.formatted for prediction in predictions),
        truncated=fmean(prediction.finish_reason == "length" for prediction in predictions),
        length=fmean(lengths),
        length_max=max(lengths),
        grading=dict(Counter(prediction.grading for prediction in predictions)),
    )


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that k of the samples, drawn without replacement, hold a right one: unbiased (Chen et al. 2021, arXiv:2107.03374, Eq. 1)."""
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def powers_of_two(largest: int) -> list[int]:
    """1, 2, 4, ... below `largest`, and itself: the k at which pass@k is shown."""
    return sorted({1 << i for i in range(largest.bit_length())} | {largest})


def interval(shares: Sequence[float], samples: int) -> tuple[float, float]:
    """95 % interval of the mean of per-problem shares of right answers, each over `samples` responses.

    Wilson's score interval (Wilson 1927), with as many independent trials as the spread of the shares amounts to: the number of
    problems where a problem's responses all agree, that times `samples` where they are as good as independent.
    """
    problems, mean = len(shares), fmean(shares)
    trials = problems
    if samples > 1 and 0 < mean < 1 and problems > 1:
        squared_error = variance(shares) / problems
        trials = min(max(mean * (1 - mean) / squared_error, problems), problems * samples) if squared_error else problems * samples
    center = (mean + Z_95**2 / (2 * trials)) / (1 + Z_95**2 / trials)
    half = Z_95 / (1 + Z_95**2 / trials) * math.sqrt(mean * (1 - mean) / trials + Z_95**2 / (4 * trials**2))
    return max(0.0, center - half), min(1.0, center + half)


def average(evaluations: Mapping[str, Evaluation]) -> float | None:
    """Unweighted mean of the sets' accuracies, as tables of papers show it; None without any set."""
    return fmean(evaluation.accuracy for evaluation in evaluations.values()) if evaluations else None


def pooled(evaluations: Mapping[str, Evaluation]) -> float | None:
    """Share of right answers over all problems of all sets; None without any set."""
    total = sum(evaluation.problems for evaluation in evaluations.values())
    return sum(evaluation.problems * evaluation.accuracy for evaluation in evaluations.values()) / total if total else None
