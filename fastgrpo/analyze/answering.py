"""Which template makes a base model answer: the share of responses that try to, rather than go on with the question's text."""

from __future__ import annotations

from collections.abc import Sequence

from fastgrpo.analyze import rules
from fastgrpo.analyze.judge import Task, Verdict, statuses
from fastgrpo.analyze.samples import Draw

ANSWERING = Task(
    "answering",
    "A language model was given a question and went on with a text. Decide what the text does, however well it does it.\n"
    "1: it responds to the question: it reasons towards an answer or states one, right or wrong, complete or cut off.\n"
    "0: it does anything else: it goes on writing the question, adds conditions, choices or further questions, talks about the "
    "question without working on it, or is unrelated.",
    (0, 1),
    rules.answers,
)


def answering_row(draw: Draw, verdicts: Sequence[Verdict]) -> dict:
    """Counts of one template at one temperature. `share` is of the responses that got a verdict; None where none did."""
    counts = statuses(verdicts)
    answering = sum(verdict.category == 1 for verdict in verdicts)
    share = answering / counts["ok"] if counts["ok"] else None
    return {"template": draw.template, "temperature": draw.temperature, "share": share, "answering": answering, **counts}


def choose_template(rows: Sequence[dict]) -> dict:
    """The template with the largest answering share over all temperatures; of equal ones the first. "template" None without a verdict."""
    totals: dict[str, list[int]] = {}
    for row in rows:
        total = totals.setdefault(row["template"], [0, 0])
        total[0] += row["answering"]
        total[1] += row["ok"]
    shares = {template: answering / judged for template, (answering, judged) in totals.items() if judged}
    return {"template": max(shares, key=shares.__getitem__, default=None), "shares": shares}
