"""The rows of a problem source, whatever holds them: JSON lines, a JSON array, parquet, a saved `datasets` directory, the Hub.

A row that cannot be read never hides the others: it is skipped and listed with its number. Numbers are those an editor shows:
the line of a .jsonl file, else the row, both from 1 and counting what was skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.errors import InputError
from fastgrpo.hub import offline_without_hub

if TYPE_CHECKING:
    import pyarrow

BOM = b"\xef\xbb\xbf"
HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[^@]+))?@(?P<split>.+)")
SOURCES = (
    "builtin:arithmetic[-easy|-hard]@train|heldout, a name such as math12k, a .jsonl, .json or .parquet file, "
    "a directory of datasets.save_to_disk, or org/name@split or org/name:config@split on the Hub, such as openai/gsm8k:main@train"
)


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row that no problem was made of: its number, and why."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rows:
    """What a source holds: readable rows with their numbers, in order, and those that could not be read."""

    readable: tuple[tuple[int, Mapping], ...]
    skipped: tuple[SkippedRow, ...] = ()


def read_rows(source: str) -> Rows:
    """Raises InputError where nothing can be read: no such file, a damaged file, an unknown kind, a set that the Hub does not give."""
    path, hub = Path(source), HUB.fullmatch(source)
    if path.is_dir():
        return _of_dataset(source, lambda datasets: datasets.load_from_disk(source))
    if path.suffix in _FILES:
        try:
            return _FILES[path.suffix](path)
        except FileNotFoundError as error:
            raise InputError(f"{source}: no such file") from error
        except OSError as error:
            raise InputError(f"{source} could not be read: {error.strerror or _first_line(error)}") from error
    if hub:
        return read_hub(hub["name"], hub["config"], hub["split"])
    raise InputError(f"{source} is not a problem set{'' if path.exists() else ' and no such file exists'}; it can be {SOURCES}")


def read_hub(name: str, config: str | None, split: str) -> Rows:
    """The rows of a split on the Hub; `config` None is a set without configurations. Raises InputError where it cannot be loaded."""
    source = f"{name}{'' if config is None else f':{config}'}@{split}"
    offline_without_hub()
    return _of_dataset(source, lambda datasets: datasets.load_dataset(name, config, split=split))


def _jsonl(path: Path) -> Rows:
    readable, skipped = [], []
    for number, line in enumerate(path.read_bytes().removeprefix(BOM).splitlines(), 1):  # bytes: only line ends split, not U+2028
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            skipped.append(SkippedRow(number, f"not UTF-8 text: byte {error.start + 1} is 0x{line[error.start]:02x}"))
        except (ValueError, RecursionError) as error:
            skipped.append(SkippedRow(number, f"not valid JSON ({_first_line(error)}); a .jsonl file holds one object a line"))
        else:
            _keep(row, number, readable, skipped)
    return Rows(tuple(readable), tuple(skipped))


def _json(path: Path) -> Rows:
    try:
        rows = json.loads(path.read_bytes().removeprefix(BOM).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({_first_line(error)}); one object a line belongs into a .jsonl file") from error
    if not isinstance(rows, list):
        raise InputError(f"{path} holds {type(rows).__name__}; a .json file of problems is an array of objects")
    readable, skipped = [], []
    for number, row in enumerate(rows, 1):
        _keep(row, number, readable, skipped)
    return Rows(tuple(readable), tuple(skipped))


def _keep(row: object, number: int, readable: list[tuple[int, Mapping]], skipped: list[SkippedRow]) -> None:
    if isinstance(row, dict):
        readable.append((number, row))
    else:
        reason = f'expected an object such as {{"problem": ..., "answer": ...}}, found {type(row).__name__}'
        skipped.append(SkippedRow(number, reason))


def _parquet(path: Path) -> Rows:
    """Row group by row group: a damaged page costs its group, text that is not UTF-8 its row."""
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise FileNotFoundError(path)
    readable, skipped, first = [], [], 1
    try:
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        if sum(counts) != file.metadata.num_rows:
            raise ValueError("its row counts disagree")
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} could not be read: {_first_line(error)}") from error
    with file:
        for group, count in enumerate(counts):
            try:
                rows = list(_python_rows(file.read_row_group(group)))
            except (OSError, ValueError, pyarrow.ArrowException) as error:
                rows = [f"row group {group + 1} of the parquet file is damaged ({_first_line(error)})"] * count
            for number, row in enumerate(rows, first):
                if isinstance(row, str):
                    skipped.append(SkippedRow(number, row))
                else:
                    readable.append((number, row))
            first += count
    return Rows(tuple(readable), tuple(skipped))


def _python_rows(table: pyarrow.Table) -> Iterator[dict | str]:
    """Each row, or in its place why it cannot be read."""
    try:
        yield from table.to_pylist()
    except UnicodeDecodeError:
        for i in range(table.num_rows):
            try:
                yield table.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield f"not UTF-8 text: byte {error.start + 1} is 0x{error.object[error.start]:02x}"


def _of_dataset(source: str, load: Callable) -> Rows:
    import datasets

    try:
        loaded = load(datasets)
        if not isinstance(loaded, datasets.DatasetDict):
            return Rows(tuple(enumerate(loaded.to_list(), 1)))
    except Exception as error:
        raise InputError(f"{source} could not be loaded: {_first_line(error)}") from error
    raise InputError(f"{source} holds several splits ({', '.join(loaded)}); give the directory of one of them")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_FILES: dict[str, Callable[[Path], Rows]] = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
