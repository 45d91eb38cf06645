"""Problem sets by name, checked row by row, and the prompts made of them.

A row without a usable question and answer is skipped and listed, never repaired; only a set without any usable row is an error.
Prompts are rendered and tokenised once, without special tokens: a template is the whole prompt.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo import arithmetic
from fastgrpo.errors import InputError
from fastgrpo.problem_sets import PRESETS, as_published
from fastgrpo.sources import SOURCES, Rows, SkippedRow, read_hub, read_rows
from fastgrpo.types import Answer, Problem, Prompt

if TYPE_CHECKING:
    from fastgrpo.templates import Template

BUILTIN = re.compile(r"builtin:arithmetic(?:-(?P<level>easy|hard))?@(?P<split>train|heldout)")
BUILTIN_SIZES = {"train": 4096, "heldout": 512}
BARE_NAME = re.compile(r"[\w-]+")
SHOWN_REASONS = 3  # of a set without a usable row: enough to see the pattern


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """The usable problems of a source in its order, the rows that were skipped, and what else a reader should know."""

    source: str
    problems: tuple[Problem, ...]
    skipped: tuple[SkippedRow, ...] = ()
    warnings: tuple[str, ...] = ()

    def skipped_lines(self, limit: int = 5) -> list[str]:
        return skipped_lines(self.source, self.skipped, len(self.problems), limit)

    def fingerprint(self) -> str:
        """A hash of questions and answers, in order."""
        text = json.dumps([(p.problem, p.answer) for p in self.problems], ensure_ascii=False)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def skipped_lines(source: str, skipped: Sequence[SkippedRow], used: int, limit: int = 5) -> list[str]:
    """A count, then the first `limit` reasons with their rows; rows in sequence with one reason share a line. Empty if none is."""
    if not skipped:
        return []
    unit, runs = _unit(source), list(_runs(skipped))
    lines = [f"{source}: {len(skipped):,} of {len(skipped) + used:,} rows skipped"]
    for first, last, reason in runs[:limit]:
        lines.append(f"  {unit} {first}: {reason}" if first == last else f"  {unit}s {first} to {last}: {reason}")
    if len(runs) > limit:
        lines.append(f"  and {len(skipped) - sum(last - first + 1 for first, last, _ in runs[:limit]):,} more rows")
    return lines


def row_number(problem: Problem) -> int:
    """The row that a problem was made of, from 1 (a built-in one: its place, from 0): what its id ends with."""
    return int(problem.id.rpartition("-")[2])


def load_problems(source: str, problem_column: str, answer_column: str) -> ProblemSet:
    """The problems of a built-in set, a preset of problem_sets.py (exactly its bare name), a file, a directory, or a split on the Hub.

    The columns are those of files, directories and Hub splits: presets and built-in sets know their own.
    Raises InputError for an unknown or unreadable source, a column that no row has, and a set without a usable row.
    """
    if source.startswith("builtin:"):
        return _builtin(source)
    if source in PRESETS:
        return _preset(source)
    if BARE_NAME.fullmatch(source) and not Path(source).exists():
        near = difflib.get_close_matches(source, PRESETS, cutoff=0.5)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"{source} is not a problem set; {meant}known by name are {', '.join(PRESETS)}; else it can be {SOURCES}")
    return usable_problems(source, read_rows(source), problem_column, answer_column)


def render_prompts(problems: Sequence[Problem], template: Template, tokenizer, max_prompt_tokens: int) -> tuple[list[Prompt], int]:
    """Prompts of at most `max_prompt_tokens` tokens, and how many were longer and dropped. Raises InputError if none is left."""
    texts = [template.render(problem.problem) for problem in problems]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    prompts = [
        Prompt(problem.id, tuple(ids), problem.answer, problem.problem, problem.columns)
        for problem, ids in zip(problems, encoded, strict=True)
        if len(ids) <= max_prompt_tokens
    ]
    if not prompts:
        shortest = min(map(len, encoded))
        raise InputError(f"every prompt is longer than max_prompt_tokens={max_prompt_tokens}; the shortest has {shortest} tokens: raise it")
    return prompts, len(problems) - len(prompts)


def draw_prompts(prompts: Sequence[Prompt], count: int, step: int, seed: int) -> list[Prompt]:
    """The prompts of step `step` (from 1): a fresh permutation each epoch, no repetition inside one. A function of its arguments alone."""
    first = (step - 1) * count
    permutations: dict[int, list[int]] = {}
    drawn = []
    for position in range(first, first + count):
        epoch, place = divmod(position, len(prompts))
        if epoch not in permutations:
            permutations[epoch] = random.Random(f"{seed}/epoch {epoch}").sample(range(len(prompts)), len(prompts))
        drawn.append(prompts[permutations[epoch][place]])
    return drawn


def _builtin(source: str) -> ProblemSet:
    match = BUILTIN.fullmatch(source)
    if match is None:
        raise InputError(f"{source} is not a problem set; it can be {SOURCES}")
    return ProblemSet(source, tuple(arithmetic.problems(match["split"], match["level"] or "mixed", BUILTIN_SIZES[match["split"]])))


def _preset(name: str) -> ProblemSet:
    preset = PRESETS[name]
    try:
        rows = read_hub(preset.hub, preset.config, preset.split)
        loaded, found = usable_problems(name, rows, preset.problem, preset.answer, preset.take), len(rows.readable)
    except InputError as error:
        raise InputError(f"{error}. A name knows its columns; instead of {name}, {preset.source} or a file can be given") from error
    if preset.rows in (None, found):
        return loaded
    return replace(loaded, warnings=(f"{name}: {preset.source} has {found:,} rows, {preset.rows:,} were expected; it may have changed",))


def usable_problems(
    source: str, rows: Rows, problem_column: str, answer_column: str, take: Callable[[object], object] = as_published
) -> ProblemSet:
    if not rows.readable and not rows.skipped:
        raise InputError(f"{source} has no rows")
    present = {column for _, row in rows.readable for column in row}
    for column in (problem_column, answer_column):
        if rows.readable and column not in present:
            raise InputError(
                f"{source}, row {rows.readable[0][0]}: no column {column!r}; it has {', '.join(sorted(map(str, present)))}. "
                "Set data.problem=COLUMN and data.answer=COLUMN"
            )
    problems, skipped, name = [], list(rows.skipped), Path(source).name
    for number, row in rows.readable:
        try:
            question, answer = _question(row, problem_column), _answer(row, answer_column, take)
        except ValueError as error:
            skipped.append(SkippedRow(number, str(error)))
        else:
            problems.append(Problem(f"{name}-{number}", question, answer, row))
    found = ProblemSet(source, tuple(problems), tuple(sorted(skipped, key=lambda row: row.number)))
    if not problems:
        reasons = "; ".join(line.strip() for line in found.skipped_lines(SHOWN_REASONS)[1:])
        raise InputError(f"{source}: none of its {len(skipped):,} rows can be used: {reasons}")
    return found


def _question(row: Mapping, column: str) -> str:
    if column not in row:
        raise ValueError(f"no column {column!r}")
    text = row[column]
    if not isinstance(text, str) and text is not None:
        raise ValueError(f"column {column!r} holds {type(text).__name__}, expected text")
    require_content(text, column)
    return text


def _answer(row: Mapping, column: str, take: Callable[[object], object]) -> Answer:
    if column not in row:
        raise ValueError(f"no column {column!r}")
    answer = take(row[column]) if row[column] is not None else None
    for part in (answer or [None]) if isinstance(answer, list) else [answer]:
        if isinstance(part, bool) or not isinstance(part, str | int | float | None):
            inside = "a list with " if isinstance(answer, list) else ""
            raise ValueError(f"column {column!r} holds {inside}{type(part).__name__}, expected text, a number or a list of these")
        require_content(part, column)
    return answer


def require_content(value: str | int | float | None, column: str) -> None:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"column {column!r} is empty; every problem needs a question and an answer")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"column {column!r} holds {value}, expected a finite number")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"column {column!r} holds a NUL character: the text is damaged")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"column {column!r} holds half of a surrogate pair at character {error.start + 1}") from error


def _unit(source: str) -> str:
    return "line" if source.endswith(".jsonl") else "row"


def _runs(skipped: Sequence[SkippedRow]) -> Iterator[tuple[int, int, str]]:
    """(first, last, reason) of rows in sequence that share a reason."""
    first = last = skipped[0]
    for row in skipped[1:]:
        if (row.number, row.reason) != (last.number + 1, last.reason):
            yield first.number, last.number, first.reason
            first = row
        last = row
    yield first.number, last.number, first.reason
