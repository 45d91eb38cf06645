"""Problem sets by name: built-in, a JSONL or parquet file, a saved `datasets` directory, or `org/name@split` on the Hub.

Prompts are rendered and tokenised once, without special tokens: a template is the whole prompt.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo import arithmetic
from fastgrpo.errors import InputError
from fastgrpo.types import Problem, Prompt

if TYPE_CHECKING:
    from fastgrpo.templates import Template

BUILTIN = re.compile(r"builtin:arithmetic(?:-(?P<level>easy|hard))?@(?P<split>train|heldout)")
BUILTIN_SIZES = {"train": 4096, "heldout": 512}
SOURCES = (
    "builtin:arithmetic[-easy|-hard]@train|heldout, a .jsonl or .parquet file, a directory of datasets.save_to_disk, "
    "or org/name@split on the Hub"
)


def load_problems(source: str, problem_column: str, answer_column: str) -> list[Problem]:
    """All problems of a source, in its order. Raises InputError for an unknown source, a missing column, a bad row, an empty set."""
    if source.startswith("builtin:"):
        return _builtin(source)
    rows = list(_rows(source))
    if not rows:
        raise InputError(f"{source} has no rows")
    problems = []
    for number, row in enumerate(rows, 1):
        for column, types, expected in (
            (problem_column, str, "text"),
            (answer_column, (str, int, float, list), "text, a number or a list"),
        ):
            if column not in row:
                present = ", ".join(sorted(row))
                raise InputError(
                    f"{source}, row {number}: no column {column!r}; it has {present}. Set data.problem=COLUMN and data.answer=COLUMN"
                )
            if row[column] in (None, "", []):
                raise InputError(f"{source}, row {number}: column {column!r} is empty; every problem needs a question and an answer")
            if not isinstance(row[column], types):
                raise InputError(f"{source}, row {number}: column {column!r} holds {type(row[column]).__name__}, expected {expected}")
        problems.append(Problem(f"{Path(source).name}-{number}", row[problem_column], row[answer_column]))
    return problems


def render_prompts(problems: Sequence[Problem], template: Template, tokenizer, max_prompt_tokens: int) -> tuple[list[Prompt], int]:
    """Prompts of at most `max_prompt_tokens` tokens, and how many were longer and dropped. Raises InputError if none is left."""
    texts = [template.render(problem.problem) for problem in problems]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    prompts = [
        Prompt(problem.id, tuple(ids), problem.answer, problem.problem)
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


def _builtin(source: str) -> list[Problem]:
    match = BUILTIN.fullmatch(source)
    if match is None:
        raise InputError(f"{source} is not a problem set; it can be {SOURCES}")
    return arithmetic.problems(match["split"], match["level"] or "mixed", BUILTIN_SIZES[match["split"]])


def _rows(source: str) -> Iterable[Mapping]:
    path = Path(source)
    if path.is_dir():
        return _dataset(source, lambda datasets: datasets.load_from_disk(source))
    if path.suffix == ".jsonl" and path.is_file():
        return _jsonl(path)
    if path.suffix == ".parquet" and path.is_file():
        return _parquet(path)
    if path.suffix in (".jsonl", ".parquet"):
        raise InputError(f"{source}: no such file")
    name, at, split = source.partition("@")
    if at and split and name.count("/") == 1:
        return _dataset(source, lambda datasets: datasets.load_dataset(name, split=split))
    raise InputError(f"{source} is not a problem set{'' if path.exists() else ' and no such file exists'}; it can be {SOURCES}")


def _jsonl(path: Path) -> Iterable[Mapping]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not valid JSON ({error}); a .jsonl file holds one object a line") from error
        if not isinstance(row, dict):
            raise InputError(f'{path}:{number}: expected an object such as {{"problem": ..., "answer": ...}}, found {type(row).__name__}')
        yield row


def _parquet(path: Path) -> Iterable[Mapping]:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} could not be read: {_first_line(error)}") from error


def _dataset(source: str, load) -> Iterable[Mapping]:
    import datasets

    try:
        loaded = load(datasets)
    except Exception as error:
        raise InputError(f"{source} could not be loaded: {_first_line(error)}") from error
    if isinstance(loaded, datasets.DatasetDict):
        raise InputError(f"{source} holds several splits ({', '.join(loaded)}); give the directory of one of them")
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
