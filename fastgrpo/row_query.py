"""Questions about the responses that a run or an evaluation kept, as SQL expressions over its parquet files, answered by DuckDB.

An expression can compute and no more: the connection may open the listed files and no other, reaches no network, loads no extension,
sees no Python variable, and can change none of this; and DuckDB takes the text as one expression, so no second statement fits in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.errors import InputError, SetupError

if TYPE_CHECKING:
    import pyarrow

LOCKS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",
    "SET temp_directory = ''",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
STEP = re.compile(r"step_(\d+)")


@dataclass(frozen=True, slots=True)
class Found:
    """`rows` of the `matching` ones, after order and limit, of `total`."""

    rows: pyarrow.Table
    matching: int
    total: int

    def only(self, names: Sequence[str]) -> Found:
        """With these columns alone, as far as there are such."""
        return replace(self, rows=self.rows.select([name for name in names if name in self.rows.column_names]))


def find_rows(files: Sequence[Path], where: str = "true", columns: Sequence[str] = (), order: str = "", limit: int | None = None) -> Found:
    """Rows of the files for which `where` is true, with these columns (all without any), in the files' order unless `order` says another.

    Raises InputError for an expression or a column that does not fit, in one line, and SetupError without DuckDB.
    """
    connection = _connect(files)
    import duckdb

    rows = connection.view("rows")
    names = tuple(rows.columns)
    if unknown := [name for name in columns if name not in names]:
        raise InputError(f"--columns: {_no_column(unknown[0], names)}")
    given = f"--where {where!r}"
    try:
        matching = rows.filter(duckdb.SQLExpression(f"(\n{where}\n)"))  # a comment at its end must not take the bracket along
        count, total = (relation.aggregate("count(*)").fetchall()[0][0] for relation in (matching, rows))
        given = f"--order {order!r}"
        chosen = matching.order(order) if order else matching
        chosen = chosen if limit is None else chosen.limit(limit)
        chosen = chosen.project(", ".join(f'"{name}"' for name in columns or names))
        return Found(chosen.to_arrow_table(), count, total)
    except duckdb.Error as error:
        raise InputError(f"{given}: {_explained(given, str(error), names)}") from None


def _connect(files: Sequence[Path]):
    """A connection that can read these files alone, with all rows in the view `rows`."""
    try:
        import duckdb
    except ImportError as error:
        raise SetupError(f'questions about responses need DuckDB ({error}): pip install "fastgrpo[rollouts]"') from error
    connection = duckdb.connect(":memory:")
    paths = [str(path.absolute()) for path in files]
    connection.execute(f"SET allowed_paths = [{', '.join(_quoted(path) for path in paths)}]")
    try:
        connection.read_parquet(paths, union_by_name=True).create_view("stored")
        names = connection.view("stored").columns
        more = ["finish_reason = 'length' AS truncated", *["len(token_ids) AS length"] * ("token_ids" in names)]
        connection.execute(f"CREATE VIEW rows AS SELECT *, {', '.join(more)} FROM stored")
    except duckdb.Error as error:
        raise InputError(f"{files[0].parent} does not hold responses as fastgrpo writes them: {_first_line(str(error))}") from None
    for lock in LOCKS:
        connection.execute(lock)
    return connection


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _explained(given: str, said: str, names: Sequence[str]) -> str:
    """DuckDB's words in one line; of a column that does not exist, what was meant."""
    missing = re.search(r'Referenced column "([^"]*)" not found', said)
    reserved = ' (a word of SQL: as a column it is written "right", in double quotes)' if re.search(r"\bright\b", given) else ""
    return _no_column(missing[1], names) if missing else _first_line(said) + reserved


def _first_line(said: str) -> str:
    return " ".join(said.split("\n\n")[0].split("\nLINE")[0].split())


def _no_column(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"there is no column {name!r}{f'; did you mean {near[0]}?' if near else ';'} the columns are {', '.join(names)}"


def find_files(given: str, step: str, evaluations: bool, say: Callable[[str], None]) -> list[Path]:
    """The files of a run's rollouts (or its own evaluations), or of a directory that `fastgrpo eval` wrote; `say` hears of torn ones.

    `step` is "" for all, "last", a number, or a list such as 1,5-8. Raises InputError where there is nothing to look at.
    """
    directory = Path(given)
    kind = "evals" if evaluations else "rollouts"
    if (directory / kind).is_dir() and (directory / "config.yaml").is_file():
        files = _of_steps(sorted((directory / kind).glob("step_*.parquet"), key=_step), step, directory / kind)
    elif (directory / "protocol.json").is_file():
        if step:
            raise InputError(f"--step {step} needs a run directory, and {given} holds one evaluation")
        files = sorted(directory.glob("*.parquet"))
    else:
        there = "is no such directory" if not directory.is_dir() else "is neither"
        raise InputError(f"{given} {there}; give the directory of a run, or one that `fastgrpo eval` wrote")
    if not files:
        raise InputError(f"{directory / kind if (directory / kind).is_dir() else directory} holds no responses yet")
    torn = {path: reason for path in files if (reason := _torn(path))}
    whole = [path for path in files if path not in torn]
    if torn and (step or not whole):
        path, reason = next(iter(torn.items()))
        raise InputError(f"{path} cannot be read: {reason}")
    for path, reason in torn.items():
        say(f"WARNING: {path} is left out, it cannot be read: {reason}")
    return whole


def _of_steps(files: Sequence[Path], step: str, folder: Path) -> list[Path]:
    if not step or not files:
        return list(files)
    if step == "last":
        return [files[-1]]
    parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip()) for part in step.split(",")]
    if not all(parts):
        raise InputError(f"--step {step} is none; it can be last, a number, or a list such as 1,5-8")
    ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts]
    found = [path for path in files if any(first <= _step(path) <= last for first, last in ranges)]
    if not found:
        raise InputError(f"{folder} has no step {step}; it has {_step(files[0])} to {_step(files[-1])}")
    return found


def _step(path: Path) -> int:
    match = STEP.fullmatch(path.stem)
    return int(match[1]) if match else -1


def _torn(path: Path) -> str:
    """Why the file cannot be read; "" where it can."""
    import pyarrow
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_metadata(path)
    except (OSError, pyarrow.ArrowException) as error:
        return _first_line(str(error))
    return ""
