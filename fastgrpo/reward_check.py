"""`fastgrpo reward check`: labelled responses against our grader, or, where rows have no label, each gold against itself."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fastgrpo.errors import InputError
from fastgrpo.rewards import Grader
from fastgrpo.rewards.extract import Form
from fastgrpo.rewards.preflight import in_form
from fastgrpo.rewards.verify import gold_texts
from fastgrpo.sources import read_rows
from fastgrpo.types import Answer, GradeStatus

FORMS: Mapping[str, Form] = {  # the reward functions of the paper's code, and the forms that they read
    "boxed_reward_fn": "boxed",
    "answer_tag_reward_fn": "answer_tag",
    "answer_tag_reward_fn_for_orz": "orz_tag",
}
VERIFIERS = ("fast", "math_verify")
SHOWN_CHARS = 120


@dataclass(frozen=True, slots=True)
class Case:
    """One row: a response, its gold, the reward it should get, and how it is to be graded."""

    row: int
    response: str
    gold: Answer
    reward: float
    form: Form
    verifier: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row whose label differs from our reward; `response` is cut to its end."""

    row: int
    response: str
    gold: Answer
    label: float
    ours: float
    status: GradeStatus
    form: Form
    verifier: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of the rows agree, the seconds that grading took, the statuses, and what differs or could not be used."""

    rows: int
    agree: int
    seconds: float
    status: Mapping[str, int]
    disagreements: tuple[Disagreement, ...]
    skipped: tuple[str, ...]

    def as_json(self) -> dict:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people: the differences, then the counts."""
        lines = [
            f"row {d.row}: label {d.label:g}, ours {d.ours:g} ({d.verifier}, {d.form}, {d.status}): {d.response!r} for gold {d.gold!r}"
            for d in self.disagreements
        ]
        lines += [f"skipped {reason}" for reason in self.skipped]
        statuses = ", ".join(f"{count} {name}" for name, count in self.status.items())
        lines.append(f"{self.agree} of {self.rows} rows agree ({self.agree / self.rows:.1%}) in {self.seconds:.1f} s: {statuses}")
        return lines


def check_rewards(file: Path, verifier: str, form: str, compat: bool, answer_column: str) -> Agreement:
    """Grades every usable row. Raises InputError when there is none."""
    for name, value, allowed in (("verifier", verifier, VERIFIERS), ("form", form, tuple(FORMS.values()))):
        if value not in allowed:
            raise InputError(f"--{name} {value!r} does not exist; it can be {', '.join(allowed)}")
    rows = read_rows(str(file))
    cases, skipped = [], [f"row {row.number}: {row.reason}" for row in rows.skipped]
    for number, row in rows.readable:
        try:
            cases.append(read_case(number, row, form, verifier, answer_column))
        except (TypeError, ValueError) as error:
            skipped.append(f"row {number}: {error}")
    if not cases:
        raise InputError(f"{file} has no row that can be graded; {skipped[0] if skipped else 'it has no rows'}")
    return compare(cases, compat, tuple(skipped))


def read_case(number: int, row: Mapping, form: str, verifier: str, answer_column: str) -> Case:
    """Raises ValueError or TypeError for a row that is none, saying why."""
    gold = row.get("gold", row.get(answer_column))
    if gold is None:
        raise ValueError(f"no gold: it has the columns {', '.join(sorted(row))}; name another with --answer")
    texts = gold_texts(gold)
    function, verifier = row.get("template_fn"), row.get("verifier", verifier)
    if function is not None and function not in FORMS:
        raise ValueError(f"template_fn {function!r} is none of {', '.join(FORMS)}")
    if verifier not in VERIFIERS:
        raise ValueError(f"verifier {verifier!r} is none of {', '.join(VERIFIERS)}")
    form = FORMS[function] if function else form
    if "response" not in row:
        return Case(number, in_form(texts[0], form), gold, 1.0, form, verifier)
    if not isinstance(row["response"], str):
        raise ValueError(f"response is {type(row['response']).__name__}, expected text")
    if not isinstance(row.get("reward"), (int, float)):
        raise ValueError(f"reward is {row.get('reward')!r}, expected a number")
    return Case(number, row["response"], gold, float(row["reward"]), form, verifier)


def compare(cases: list[Case], compat: bool, skipped: tuple[str, ...]) -> Agreement:
    """Grades the cases, those of one form and verifier together, and compares with their labels."""
    alike: dict[tuple[Form, str], list[Case]] = defaultdict(list)
    for case in cases:
        alike[case.form, case.verifier].append(case)
    statuses, different, started = Counter(), [], time.monotonic()
    for (form, verifier), group in alike.items():
        with Grader(form, verifier, compat=compat) as grader:
            for case, grade in zip(group, grader.grade((case.response, case.gold) for case in group), strict=True):
                statuses[grade.status] += 1
                if grade.reward != case.reward:
                    shown = case.response[-SHOWN_CHARS:]
                    different.append(Disagreement(case.row, shown, case.gold, case.reward, grade.reward, grade.status, form, verifier))
    different.sort(key=lambda d: d.row)
    seconds = time.monotonic() - started
    return Agreement(len(cases), len(cases) - len(different), round(seconds, 2), dict(statuses), tuple(different), skipped)
