"""The charts of a page: which numbers of metrics.jsonl are drawn together, under which words.

What would surprise: a step has several updates. Their numbers are drawn as the mean over the step, or the largest where that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

Value = float | None


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    value: Callable[[dict], Value]


@dataclass(frozen=True, slots=True)
class Chart:
    """`form` says how values are written: share (shown in %), number, seconds."""

    id: str
    title: str
    about: str
    form: str
    lines: Sequence[Line]


def of_step(*keys: str) -> Callable[[dict], Value]:
    """A number of the row, also one inside: of_step("refill", "reward")."""

    def value(row: dict) -> Value:
        for key in keys:
            row = row.get(key) if isinstance(row, dict) else None
        return row if isinstance(row, (int, float)) and not isinstance(row, bool) else None

    return value


def of_updates(key: str, combine: Callable = fmean) -> Callable[[dict], Value]:
    """A number of the step's updates; an update that was skipped has none."""

    def value(row: dict) -> Value:
        updates = row.get("updates") or ([row] if key in row else [])  # a step of pretraining is one update
        found = [update[key] for update in updates if update.get(key) is not None and not update.get("skipped")]
        return combine(found) if found else None

    return value


def odd_grades(row: dict) -> Value:
    """Share of responses whose grading was not plain."""
    counts = row.get("grading")
    total = sum(counts.values()) if counts else 0
    return (total - counts.get("ok", 0)) / total if total else None


def per_second(*phases: str) -> Callable[[dict], Value]:
    """Tokens of the responses, or of texts, by the seconds of some phases; of all phases without any."""

    def value(row: dict) -> Value:
        tokens, seconds = row.get("response_tokens") or row.get("tokens"), row.get("seconds") or {}
        spent = sum(seconds.get(phase, 0.0) for phase in (phases or seconds))
        return tokens / spent if tokens and spent > 0 else None

    return value


CHARTS = (
    Chart(
        "reward",
        "Reward",
        "Mean over the scorable responses of a step. Beside it the mean over all that were drawn, where groups were replaced.",
        "number",
        (Line("mean", of_step("reward")), Line("all drawn", of_step("refill", "reward"))),
    ),
    Chart(
        "loss",
        "Loss",
        "Of pretraining, in nats per predicted token. The loss of a policy gradient says nothing of progress and is not drawn.",
        "number",
        (Line("texts read", lambda row: row.get("loss") if "updates" not in row else None),),
    ),
    Chart(
        "lengths",
        "Response length",
        "Mean tokens, of right and wrong responses apart: GRPO's length bias shows as wrong ones that grow.",
        "number",
        (Line("right", of_step("length_right")), Line("wrong", of_step("length_wrong")), Line("all", of_step("length"))),
    ),
    Chart(
        "truncated",
        "Truncation and form",
        "Share of responses cut at max_new_tokens, and of those with an answer in the right form.",
        "share",
        (Line("truncated", of_step("truncated")), Line("formatted", of_step("formatted"))),
    ),
    Chart(
        "zero_signal",
        "Groups without signal",
        "Share of groups whose rewards are all equal: they teach nothing. All right: too easy by now; all wrong: too hard.",
        "share",
        (
            Line("all right", of_step("zero_signal_right")),
            Line("all wrong", of_step("zero_signal_wrong")),
            Line("together", of_step("zero_signal")),
        ),
    ),
    Chart(
        "entropy",
        "Entropy",
        "Of the policy, in nats per token, over the tokens that were learned from. A fall to 0 means no more exploration.",
        "number",
        (Line("entropy", of_updates("entropy")),),
    ),
    Chart(
        "kl",
        "Approximate KL",
        "Of the policy within a step from where the step began, in nats per token; from the reference too where loss.beta > 0.",
        "number",
        (Line("k1", of_updates("kl_k1")), Line("k3", of_updates("kl_k3")), Line("reference", of_updates("ref_kl"))),
    ),
    Chart(
        "clip",
        "Clip fractions",
        "Share of tokens whose ratio was clipped, below and above.",
        "share",
        (Line("low", of_updates("clip_low")), Line("high", of_updates("clip_high"))),
    ),
    Chart(
        "grad_norm",
        "Gradient norm",
        "Before clipping; mean and largest of a step's updates.",
        "number",
        (Line("mean", of_updates("grad_norm")), Line("largest", of_updates("grad_norm", max))),
    ),
    Chart(
        "logprob_gap",
        "Log-prob gap of sampler and learner",
        "Mean |difference| in nats per token: later updates move away from the sampler's weights. At the start: before any update.",
        "number",
        (
            Line("mean", lambda row: of_updates("logprob_gap")(row) if "updates" in row else None),
            Line("at the start", of_step("parity", "mean")),
        ),
    ),
    Chart(
        "ratio_max",
        "Largest ratio",
        "Of a token's probability to what it was when the step began, over a step's updates.",
        "number",
        (Line("largest", of_updates("ratio_max", max)),),
    ),
    Chart(
        "grading",
        "Grading and duplicates",
        "Share of responses whose grading timed out, crashed or could not be read, and of responses that repeat one of their group.",
        "share",
        (Line("odd grading", odd_grades), Line("duplicates", of_step("duplicates"))),
    ),
    Chart(
        "lr",
        "Learning rate",
        "Of the optimizer, as set by the schedule.",
        "number",
        (Line("lr", of_updates("lr")),),
    ),
    Chart(
        "throughput",
        "Throughput",
        "Tokens of responses (pretraining: of texts) per second, over all phases and over sampling alone.",
        "number",
        (Line("all phases", per_second()), Line("sampling", per_second("sample"))),
    ),
)
