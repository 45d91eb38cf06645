"""What is wrong with problem sets, before a run is spent on them: skipped rows, duplicates, long prompts, evaluation questions in training.

Answers are compared as text: 1/2 and 0.5 under one question count as a conflict.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from fastgrpo.data import ProblemSet, load_problems, row_number
from fastgrpo.errors import InputError
from fastgrpo.overlap import WORDS, Overlap, find_overlap, normal
from fastgrpo.templates import TEMPLATES
from fastgrpo.types import Answer, Problem

LONGEST_ANSWER = 400  # characters: the graders compare longer ones as text only
LONGEST_QUESTION = 8000  # characters, where no tokenizer is given: about 2,000 tokens
SHOWN = 3  # examples of each finding


@dataclass(frozen=True, slots=True)
class _Length:
    """How long a prompt may be, in which unit, and what measures questions."""

    limit: int
    unit: str
    measure: Callable[[list[str]], list[int]]


@dataclass(frozen=True, slots=True)
class SetReport:
    """One problem set. Everything listed is by row number; `columns` counts the types of each column over usable rows.

    skipped: (row, reason). duplicates and conflicts: groups of rows with one question; in conflicts their answers differ.
    too_long: (row, length).
    """

    source: str
    problems: int
    columns: Mapping[str, Mapping[str, int]]
    skipped: tuple[tuple[int, str], ...]
    skipped_lines: tuple[str, ...]
    warnings: tuple[str, ...]
    duplicates: tuple[tuple[int, ...], ...]
    conflicts: tuple[tuple[int, ...], ...]
    too_long: tuple[tuple[int, int], ...]
    limit: str
    long_answers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    sets: tuple[SetReport, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def problems_found(self) -> bool:
        return any(map(_set_findings, self.sets)) or any(map(_overlap_findings, self.overlaps))

    def lines(self) -> list[str]:
        """For people: a line for each set with what is wrong below it, then what the sets share."""
        lines, clean = [], defaultdict(list)
        for found in self.sets:
            columns = ", ".join(f"{name} ({' or '.join(types)})" for name, types in found.columns.items())
            lines += [f"{found.source}: {found.problems:,} problems; columns {columns}", *_set_findings(found)]
        for pair in self.overlaps:
            if findings := _overlap_findings(pair):
                lines += [f"{pair.evaluation} in {pair.train}:", *findings]
            else:
                clean[pair.train].append(pair.evaluation)
        return [*lines, *(f"{train} shows no question of {', '.join(held)}" for train, held in clean.items())]

    def as_json(self) -> dict:
        """For machines: everything, with all row numbers."""
        fields = asdict(self)
        for found in fields["sets"]:
            del found["skipped_lines"]  # `skipped` for people
        return {"problems_found": self.problems_found, **fields}


def check_data(
    train: Sequence[str],
    evaluation: Sequence[str],
    problem_column: str,
    answer_column: str,
    tokenizer: str = "",
    template: str = "no",
    max_prompt_tokens: int = 1024,
) -> Report:
    """Loads every source, checks each, and looks for each evaluation set in each training set.

    With a `tokenizer`, a model directory or hub id, prompts are measured in tokens as training does, else questions in characters.
    Raises InputError for a source without a usable row, an unknown template and a model without a tokenizer.
    """
    length = _length(tokenizer, template, max_prompt_tokens)
    sets = {source: load_problems(source, problem_column, answer_column) for source in (*train, *evaluation)}
    pairs = [(sets[shown], sets[held]) for shown in dict.fromkeys(train) for held in dict.fromkeys(evaluation)]
    return Report(tuple(_check_set(found, length) for found in sets.values()), tuple(find_overlap(shown, held) for shown, held in pairs))


def _length(tokenizer: str, template: str, max_prompt_tokens: int) -> _Length:
    if template not in TEMPLATES:
        raise InputError(f"template {template!r} does not exist; there are {', '.join(TEMPLATES)}")
    if not tokenizer:
        return _Length(LONGEST_QUESTION, "characters", lambda questions: list(map(len, questions)))
    from fastgrpo.model import load_tokenizer  # it loads torch

    encode, render = load_tokenizer(tokenizer), TEMPLATES[template].render

    def tokens(questions: list[str]) -> list[int]:
        return list(map(len, encode(list(map(render, questions)), add_special_tokens=False)["input_ids"]))

    return _Length(max_prompt_tokens, "tokens", tokens)


def _check_set(found: ProblemSet, length: _Length) -> SetReport:
    columns: dict[str, Counter] = defaultdict(Counter)
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in found.problems:
        for name, value in (problem.columns or {"problem": problem.problem, "answer": problem.answer}).items():
            columns[name][_type_name(value)] += 1
        groups[normal(problem.problem)].append(problem)
    repeated = [group for group in groups.values() if len(group) > 1]
    agree = [len({_answer_key(problem.answer) for problem in group}) == 1 for group in repeated]
    rows = [tuple(map(row_number, group)) for group in repeated]
    lengths = length.measure([problem.problem for problem in found.problems])
    return SetReport(
        source=found.source,
        problems=len(found.problems),
        columns={name: dict(types.most_common()) for name, types in columns.items()},
        skipped=tuple((row.number, row.reason) for row in found.skipped),
        skipped_lines=tuple(found.skipped_lines()),
        warnings=found.warnings,
        duplicates=tuple(group for group, same in zip(rows, agree, strict=True) if same),
        conflicts=tuple(group for group, same in zip(rows, agree, strict=True) if not same),
        too_long=tuple((row_number(p), n) for p, n in zip(found.problems, lengths, strict=True) if n > length.limit),
        limit=f"{length.limit:,} {length.unit}",
        long_answers=tuple(row_number(p) for p in found.problems if max(map(len, _texts(p.answer))) > LONGEST_ANSWER),
    )


def _texts(answer: Answer) -> list[str]:
    return [str(part) for part in answer] if isinstance(answer, list) else [str(answer)]


def _answer_key(answer: Answer) -> tuple[str, ...]:
    parts = answer if isinstance(answer, list) else [answer]
    return tuple(sorted(normal(str(int(part) if isinstance(part, float) and part.is_integer() else part)) for part in parts))


def _type_name(value: object) -> str:
    names = {"str": "text", "int": "number", "float": "number", "NoneType": "empty", "bool": "yes/no"}
    return names.get(type(value).__name__, type(value).__name__)


def _set_findings(found: SetReport) -> list[str]:
    """A line for each kind of thing that is wrong, with its first examples."""
    copies = sum(len(rows) - 1 for rows in found.duplicates)
    kinds = (
        (found.duplicates, f"questions occur more than once ({copies:,} copies): rows", _alike),
        (found.conflicts, "questions occur with different answers: rows", _alike),
        (found.too_long, f"prompts are longer than {found.limit}: row", lambda long: f"{long[0]} ({long[1]:,})"),
        (found.long_answers, f"answers are longer than {LONGEST_ANSWER} characters: row", str),
    )
    lines = [f"  {len(rows):,} {words} {_some(map(show, rows), len(rows))}" for rows, words, show in kinds if rows]
    return [*(f"  {line}" for line in (*found.warnings, *found.skipped_lines)), *lines]


def _overlap_findings(pair: Overlap) -> list[str]:
    exact = (f"{shown} = {row}" for shown, row in pair.exact)
    similar = (f"{shown} = {row} ({words})" for shown, row, words in pair.similar)
    kinds = (
        (pair.exact, exact, "are in it word for word"),
        (pair.similar, similar, f"share {WORDS} words in a row with it, or all if shorter"),
    )
    return [
        f"  {len(rows):,} of {pair.problems:,} questions {words}: training row = row {_some(examples, len(rows))}"
        for rows, examples, words in kinds
        if rows
    ]


def _alike(rows: Sequence[int]) -> str:
    return " = ".join([*map(str, rows[:SHOWN]), *(["..."] if len(rows) > SHOWN else [])])


def _some(examples: Iterable[str], count: int) -> str:
    shown = [example for example, _ in zip(examples, range(SHOWN), strict=False)]
    return ", ".join(shown) + (f" and {count - SHOWN:,} more" if count > SHOWN else "")
