"""Whether responses look at themselves again, by keywords, by a judge and by both; and whether those that do are right more often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from statistics import fmean

from fastgrpo.accuracy import Prediction
from fastgrpo.analyze import rules
from fastgrpo.analyze.excerpts import excerpts
from fastgrpo.analyze.judge import Task, Verdict, statuses
from fastgrpo.analyze.keywords import keywords_in
from fastgrpo.analyze.lengths import length_rows, outcome
from fastgrpo.analyze.samples import Draw

REFLECTING = 2
CATEGORIES = {0: "off-topic", 1: "no reflection", REFLECTING: "reflection", 3: "only code"}
REFLECTION = Task(
    "reflection",
    "A language model was given a question and responded with a text. Put the text into one of four categories.\n"
    "0: off-topic: it does not work on the question, or makes no sense.\n"
    "1: no reflection: it works on the question and goes straight on, without questioning what it wrote itself.\n"
    "2: reflection: somewhere it returns to what it wrote itself, to doubt, check, correct or reconsider it.\n"
    "3: only code: it is a program, with hardly any text around it.",
    tuple(CATEGORIES),
    rules.reflects,
)


def reflection_row(draw: Draw, verdicts: Sequence[Verdict], keywords: Sequence[Sequence[str]]) -> dict:
    """All counts of one draw; `verdicts` and `keywords` (those found) stand beside its predictions."""
    by_keywords = {i for i, found in enumerate(keywords) if found}
    by_judge = {i for i, verdict in enumerate(verdicts) if verdict.category == REFLECTING}
    methods = {"keywords": by_keywords, "judge": by_judge, "both": by_keywords & by_judge}
    return {
        "template": draw.template,
        "temperature": draw.temperature,
        "responses": len(draw.predictions),
        "questions": len({prediction.id for prediction in draw.predictions}),
        "categories": {name: sum(verdict.category == category for verdict in verdicts) for category, name in CATEGORIES.items()},
        **statuses(verdicts),
        "reflecting": {name: _counts(draw.predictions, where) for name, where in methods.items()},
        "accuracy": {name: accuracy_by_reflection(draw.predictions, where) for name, where in methods.items()},
        "lengths_by_level": length_rows(draw.predictions, [draw.levels[prediction.id] for prediction in draw.predictions]),
        "lengths_by_category": length_rows(draw.predictions, [CATEGORIES.get(verdict.category, verdict.status) for verdict in verdicts]),
        "excerpts": excerpts(draw.predictions, keywords, [verdict.category == REFLECTING for verdict in verdicts]),
    }


def reflection_columns(draw: Draw, verdicts: Sequence[Verdict]) -> tuple[list[list[str]], list[dict]]:
    """The keywords found in each response, and what its row on disk has beside its prediction."""
    keywords = [keywords_in(prediction.text) for prediction in draw.predictions]
    columns = [
        {"keywords": found, "category": verdict.category, "judging": verdict.status, "outcome": outcome(prediction)}
        for prediction, found, verdict in zip(draw.predictions, keywords, verdicts, strict=True)
    ]
    return keywords, columns


def accuracy_by_reflection(predictions: Sequence[Prediction], reflecting: Collection[int]) -> dict:
    """Accuracy of responses that reflect (their indices are given) and of the others: over all, and question by question.

    `questions` counts those with both kinds: `with_mean` and `without_mean` average their accuracies over these, and `better`, `equal`,
    `worse` count those where reflecting responses are right more, as, or less often. None where there is nothing to average.
    """
    split: dict[str, tuple[list[bool], list[bool]]] = defaultdict(lambda: ([], []))
    for i, prediction in enumerate(predictions):
        split[prediction.id][i not in reflecting].append(prediction.right)
    pairs = [(fmean(yes), fmean(no)) for yes, no in split.values() if yes and no]
    return {
        "with": _mean([right for yes, _ in split.values() for right in yes]),
        "without": _mean([right for _, no in split.values() for right in no]),
        "questions": len(pairs),
        "with_mean": _mean([yes for yes, _ in pairs]),
        "without_mean": _mean([no for _, no in pairs]),
        "better": sum(yes > no for yes, no in pairs),
        "equal": sum(yes == no for yes, no in pairs),
        "worse": sum(yes < no for yes, no in pairs),
    }


def _counts(predictions: Sequence[Prediction], where: Collection[int]) -> dict[str, int]:
    """Responses, and questions of which at least one response is among them."""
    return {"responses": len(where), "questions": len({predictions[i].id for i in where})}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
