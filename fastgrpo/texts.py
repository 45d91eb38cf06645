"""Texts to pretrain on: plain files, a column of whole texts, or problem sets whose questions and answers are put together.

What surprises: the parts of a text are kept apart, because each is tokenised by itself. A question then has the tokens that it has as a
prompt of reinforcement learning, and the model learns to answer where that prompt ends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.arithmetic import exercises, worked_answer
from fastgrpo.data import BARE_NAME, BUILTIN_SIZES, ProblemSet, load_problems, require_content, skipped_lines, usable_problems
from fastgrpo.errors import InputError
from fastgrpo.problem_sets import PRESETS
from fastgrpo.sources import Rows, SkippedRow, read_rows

if TYPE_CHECKING:
    from fastgrpo.config_pretrain import TextConfig

WORKED = re.compile(r"builtin:worked@(?P<split>train|heldout)")

Text = tuple[str, ...]
"""The parts of a text: one, or a question with its separator and an answer."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The usable texts of a source in its order, what they were made of, and the rows that were skipped."""

    source: str
    texts: tuple[Text, ...]
    made_of: str
    skipped: tuple[SkippedRow, ...] = ()
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What a reader should know of them."""
        skipped = skipped_lines(self.source, self.skipped, len(self.texts))
        return [f"{self.source}: {len(self.texts):,} texts, {self.made_of}", *self.warnings, *skipped]

    def fingerprint(self) -> str:
        """A hash of the texts with their parts, in order."""
        hashed = hashlib.sha256()
        for text in self.texts:
            for part in (*text, ""):  # no part is empty, so that an empty one marks the end
                data = part.encode(errors="surrogatepass")
                hashed.update(len(data).to_bytes(8, "big") + data)
        return hashed.hexdigest()


def load_texts(source: str, data: TextConfig) -> Texts:
    """Raises InputError for what cannot be read, has neither column, or holds no usable text."""
    built_in = WORKED.fullmatch(source)
    if built_in:
        texts = worked_texts(built_in["split"], data.separator)
        return Texts(source, texts, "questions with worked answers")
    if Path(source).suffix == ".txt":
        return Texts(source, ((_read(source),),), "the whole file")
    if source.startswith("builtin:") or source in PRESETS or (BARE_NAME.fullmatch(source) and not Path(source).exists()):
        return _of_problems(load_problems(source, data.problem, data.answer), "question and answer", data.separator)
    rows = read_rows(source)
    if any(data.text in row for _, row in rows.readable):
        return _of_column(source, rows, data.text)
    try:
        found = usable_problems(source, rows, data.problem, data.answer)
    except InputError as error:
        raise InputError(f"{error}, or data.text=COLUMN where a column holds whole texts") from error
    return _of_problems(found, f"columns {data.problem} and {data.answer}", data.separator)


def worked_texts(split: str, separator: str) -> tuple[Text, ...]:
    """Built-in questions, each with every step to its right answer."""
    drawn = islice(exercises(split, 0), BUILTIN_SIZES[split])
    return tuple((one.problem + separator, worked_answer(one)) for one in drawn)


def _read(source: str) -> str:
    try:
        text = Path(source).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file") from error
    except OSError as error:
        raise InputError(f"{source} could not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 text: byte {error.start + 1} is 0x{error.object[error.start]:02x}") from error
    if not text.strip():
        raise InputError(f"{source} holds no text")
    return text


def _of_column(source: str, rows: Rows, column: str) -> Texts:
    texts, skipped = [], list(rows.skipped)
    for number, row in rows.readable:
        text = row.get(column)
        if not isinstance(text, str) or not text.strip():
            held = "nothing" if text is None or isinstance(text, str) else type(text).__name__
            skipped.append(SkippedRow(number, f"column {column!r} holds {held}, expected text"))
            continue
        try:
            require_content(text, column)
        except ValueError as error:
            skipped.append(SkippedRow(number, str(error)))
        else:
            texts.append((text,))
    if not texts:
        raise InputError(f"{source}: none of its {len(skipped):,} rows can be used: {skipped[0].reason}")
    return Texts(source, tuple(texts), f"column {column}", _in_order(skipped))


def _of_problems(found: ProblemSet, made_of: str, separator: str) -> Texts:
    """Answers that are lists of alternatives are none to read, and skipped."""
    texts, skipped = [], list(found.skipped)
    for problem in found.problems:
        if isinstance(problem.answer, list):
            skipped.append(SkippedRow(int(problem.id.rpartition("-")[2]), "the answer is a list, expected text"))
        else:
            texts.append((problem.problem + separator, str(problem.answer)))
    if not texts:
        raise InputError(f"{found.source}: every answer is a list, expected text")
    return Texts(found.source, tuple(texts), made_of, _in_order(skipped), found.warnings)


def _in_order(skipped: Sequence[SkippedRow]) -> tuple[SkippedRow, ...]:
    return tuple(sorted(skipped, key=lambda row: row.number))
