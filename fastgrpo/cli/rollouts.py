"""`fastgrpo rollouts`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastgrpo.row_query import Found

SHORT = ("step", "way", "set", "prompt_id", "id", "reward", "right", "length", "truncated", "text")  # on a terminal
WIDEST = 14  # characters of a column of the table, but for the text
SHOWN = 20  # rows on a terminal, unless --limit says another


def rollouts(
    run: Annotated[str, typer.Argument(help="A run directory, or one that `fastgrpo eval` wrote.")],
    step: Annotated[str, typer.Option(help="last, a number, or a list such as 1,5-8; all by default.")] = "",
    where: Annotated[str, typer.Option(help='An SQL expression over the columns, such as "reward < 1 and truncated".')] = "true",
    order: Annotated[str, typer.Option(help='SQL, such as "length desc, reward".')] = "",
    columns: Annotated[str, typer.Option(help="Comma-separated; `all` is all.")] = "",
    limit: Annotated[int | None, typer.Option(min=0, help=f"So many rows at most; {SHOWN} on a terminal, else all.")] = None,
    evaluations: Annotated[bool, typer.Option("--evals", help="The run's own evaluations instead of its rollouts.")] = False,
    whole: Annotated[bool, typer.Option("--long", help="Each row with all of its text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as a JSON list.")] = False,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the rows into this new file instead.")] = None,
) -> None:
    """Look at the responses of a run: those that an expression is true of, with their rewards. Columns: see --columns all --limit 1 --long.

    `truncated` and `length`, in tokens, can be asked for too. Nothing but the run's own files is ever read.
    """
    from rich.console import Console

    from fastgrpo.errors import InputError
    from fastgrpo.row_query import find_files, find_rows

    errors = Console(stderr=True)

    def say(text: str) -> None:
        errors.print(text, highlight=False, markup=False, soft_wrap=True)

    if parquet is not None and parquet.exists():
        raise InputError(f"--parquet {parquet} exists already; name a new file")
    files = find_files(run, step, evaluations, say)
    names = [name.strip() for name in columns.split(",") if name.strip()]
    everything = as_json or parquet is not None
    if limit is None and not everything:
        limit = SHOWN
    found = find_rows(files, where, [] if names == ["all"] else names, order, limit)
    if not names and not everything:
        found = found.only(SHORT)
    if parquet is not None:
        write(found, parquet)
    elif as_json:
        print(json.dumps([plain(row) for row in found.rows.to_pylist()]))
    else:
        show(found, whole, Console())
    shown = f", {found.rows.num_rows:,} of them {'written' if parquet else 'shown'}" if found.rows.num_rows < found.matching else ""
    say(f"{found.matching:,} of {found.total:,} responses{shown}{f': {parquet}' if parquet else ''}")


def show(found: Found, whole: bool, console) -> None:
    """A table with a line for each row, or each row as lines of its own."""
    from rich.table import Table
    from rich.text import Text

    from fastgrpo.display import harmless

    if whole:
        for number, row in enumerate(found.rows.to_pylist()):
            lines = (f"{name}: {harmless(str(value))}" for name, value in row.items())
            console.print(*[""] * bool(number), *lines, sep="\n", **RAW)
        return
    rows = [[cell(value) for value in row.values()] for row in found.rows.to_pylist()]
    names = found.rows.column_names
    widths = [max(len(line[number]) for line in (names, *rows)) for number in range(len(names))]
    narrow = sum(min(width, WIDEST) + 2 for width in widths)
    table = Table(box=None, padding=(0, 1))
    for name, width in zip(names, widths, strict=True):
        room = max(WIDEST, console.width - narrow + min(width, WIDEST)) if name == "text" else WIDEST
        table.add_column(name, no_wrap=True, overflow="ellipsis", width=min(width, room))
    for line in rows:
        table.add_row(*map(Text, line))
    if rows:
        console.print(table)


RAW = {"highlight": False, "markup": False, "soft_wrap": True}


def cell(value: object) -> str:
    """One line of text, control characters written out."""
    return f"{value:.4g}" if isinstance(value, float) else repr(value)[1:-1] if isinstance(value, str) else str(value)


def plain(value: object) -> object:
    """For JSON, which knows no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(found: Found, path: Path) -> None:
    """The rows as a parquet file, which appears whole or not at all."""
    import pyarrow.parquet

    from fastgrpo.errors import SetupError

    unfinished = path.with_name(path.name + ".tmp")
    try:
        pyarrow.parquet.write_table(found.rows, unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SetupError(f"--parquet {path} cannot be written: {error.strerror or error}") from error
