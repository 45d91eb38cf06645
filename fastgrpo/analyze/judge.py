"""What a judge is asked and what it says: one category for each response, or why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fastgrpo.accuracy import Prediction

Status = Literal["ok", "unparsed", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A category, or None where the judge's answers could not be read ("unparsed") or none came ("failed")."""

    category: int | None
    status: Status = "ok"


@dataclass(frozen=True, slots=True)
class Task:
    """A question about responses: `instructions` for a language model, which define the categories; `rule` judges without one."""

    name: str
    instructions: str
    categories: tuple[int, ...]
    rule: Callable[[str], int]


class Judge(Protocol):
    """Puts responses into the categories of a task."""

    def judge(self, task: Task, responses: Sequence[Prediction]) -> list[Verdict]:
        """A verdict for each, in order."""

    def account(self) -> dict:
        """Who judged and what it took, in types of JSON."""


class RuleJudge:
    """Judges by the task's rule: offline, at once, the same every time."""

    def judge(self, task: Task, responses: Sequence[Prediction]) -> list[Verdict]:
        return [Verdict(task.rule(response.text)) for response in responses]

    def account(self) -> dict:
        return {"judge": "rules"}


def statuses(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many verdicts there are of each status, zeros too."""
    counts = Counter(verdict.status for verdict in verdicts)
    return {status: counts[status] for status in ("ok", "unparsed", "failed")}
