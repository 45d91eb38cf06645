"""Accuracy on problem sets, during training and by itself: one code path, with seeds of its own, so that evaluating changes no training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fastgrpo.accuracy import Evaluation, Prediction, average, measure, pooled, predict
from fastgrpo.errors import FastgrpoError
from fastgrpo.types import Prompt, Response, SampleKey, Sampling

if TYPE_CHECKING:
    from fastgrpo.ranks import Ranks
    from fastgrpo.rewards import Grader
    from fastgrpo.rollout import Sampler


class EvaluationFailed(FastgrpoError):
    """A problem set could not be evaluated, on some rank."""


Evaluations = Mapping[str, Mapping[str, Evaluation]]
"""By way of drawing ("sampled" or "greedy"), then by problem set."""


def evaluate_ways(
    sampler: Sampler,
    grader: Grader,
    sets: Mapping[str, Sequence[Prompt]],
    ways: Sequence[str],
    sampled: Sampling,
    seed: int,
    ranks: Ranks,
    after_each: Callable[[], None],
) -> tuple[dict[str, dict[str, Evaluation]], dict[str, list[Prediction]]]:
    """Every problem set, one response to each problem in each way, each rank its share; the numbers, and all predictions by way.

    `after_each` set it may be decided, by raising, to leave it at that. Raises EvaluationFailed, on every rank, where one could not
    evaluate its share.
    """
    evaluations, predictions = {}, {}
    for way in ways:
        sampling, found = replace(sampled, temperature=0.0) if way == "greedy" else sampled, {}
        for name, prompts in sets.items():
            share, failure = ranks.share(prompts), None
            try:
                share = evaluate(sampler, grader, name, share, 1, sampling, seed)
            except Exception as error:
                failure = error
                grader.results()  # what waits there belongs to this set
            reasons = ranks.gather("" if failure is None else f"{name}: {type(failure).__name__}: {failure}")
            if any(reasons):
                raise EvaluationFailed(next(filter(None, reasons))) from failure
            found[name] = ranks.join(share)
            after_each()
        evaluations[way] = {name: measure(rows) for name, rows in found.items()}
        predictions[way] = [row for rows in found.values() for row in rows]
    return evaluations, predictions


def evaluate(
    sampler: Sampler,
    grader: Grader,
    name: str,
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling,
    seed: int,
    *,
    keep_truncated: bool = False,
    known: Mapping[SampleKey, Response] | None = None,
    on_response: Callable[[SampleKey, Response], None] | None = None,
) -> list[Prediction]:
    """n graded responses to each prompt of the set `name`, in order. Grading goes on while others are still sampled.

    `known` responses, of an earlier attempt, are graded but not drawn again; `on_response` is told each new one as it ends. The
    seed, the prompt's id and the sample's number fix a response, never the step of training or its company.
    """
    responses: dict[SampleKey, Response] = dict(known or {})
    golds = {prompt.id: prompt.answer for prompt in prompts}
    for key, response in responses.items():
        grader.submit(key, response.text, golds[key[0]])

    def finish(key: SampleKey, response: Response) -> None:
        responses[key] = response
        if on_response is not None:
            on_response(key, response)
        grader.submit(key, response.text, golds[key[0]])

    _draw(sampler, prompts, n, sampling, seed, set(responses), finish)
    grades = grader.results()
    return [
        predict(name, prompt, sample, responses[prompt.id, sample], grades[prompt.id, sample], keep_truncated)
        for prompt in prompts
        for sample in range(n)
    ]


def _draw(sampler: Sampler, prompts: Sequence[Prompt], n: int, sampling: Sampling, seed: int, known: set[SampleKey], finish) -> None:
    """Draws what is not known: whole prompts together, so that a prompt is read once; of begun ones only the missing samples."""
    missing = {prompt.id: [sample for sample in range(n) if (prompt.id, sample) not in known] for prompt in prompts}
    fresh = [prompt for prompt in prompts if len(missing[prompt.id]) == n]
    begun = [(prompt, sample) for prompt in prompts for sample in missing[prompt.id] if len(missing[prompt.id]) < n]
    if fresh:
        seeds = [[request_seed(seed, "evaluate", prompt.id, sample) for sample in range(n)] for prompt in fresh]
        sampler.generate(fresh, n, sampling, seeds, on_finished=lambda i, j, response: finish((fresh[i].id, j), response))
    if begun:
        seeds = [[request_seed(seed, "evaluate", prompt.id, sample)] for prompt, sample in begun]
        alone = [prompt for prompt, _ in begun]
        sampler.generate(alone, 1, sampling, seeds, on_finished=lambda i, j, response: finish((alone[i].id, begun[i][1]), response))


def summary(before: Evaluations, after: Evaluations, steps: int, seconds: float) -> dict:
    """What summary.json holds: accuracies pooled over all held-out problems (None without any), and each set's own."""
    return {
        "accuracy_before": pooled(before.get("sampled", {})),
        "accuracy_after": pooled(after.get("sampled", {})),
        "greedy_before": pooled(before.get("greedy", {})),
        "greedy_after": pooled(after.get("greedy", {})),
        "greedy_average_before": average(before.get("greedy", {})),
        "greedy_average_after": average(after.get("greedy", {})),
        "problems": max((sum(e.problems for e in sets.values()) for sets in after.values()), default=0),
        "steps": steps,
        "seconds": round(seconds, 1),
        "sets": {
            way: {name: {"before": before[way][name].accuracy if before else None, "after": e.accuracy} for name, e in sets.items()}
            for way, sets in after.items()
        },
    }


def restored(rows: Mapping[str, Mapping[str, dict]]) -> Evaluations:
    """Evaluations as the rows of a run hold them."""
    return {way: {name: Evaluation(**row) for name, row in sets.items()} for way, sets in rows.items()}


def chosen_metric(evaluations: Evaluations, choice: str) -> float | None:
    """The accuracy that `checkpoint.best` names, such as greedy_average; None where that is "none", or was not evaluated."""
    if choice == "none":
        return None
    way, _, over = choice.partition("_")
    return {"average": average, "pooled": pooled}[over](evaluations.get(way, {}))


def request_seed(*parts: object) -> int:
    """A seed below 2**63 from anything printable: the same on every machine, whatever the number of ranks."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
