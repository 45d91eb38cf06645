"""Which responses a page holds where it cannot hold all: the same ones each time, from every step, extremes first.

What would surprise: the choice flatters nothing, but it is not a random sample either, so no mean may be taken over it. The page says how
many of how many it holds; its curves are over all.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fastgrpo.report.pieces import Pieces
from fastgrpo.report.rollouts import StepRollouts, count_rows, read_step, rows_of, step_files

RESPONSES = 4000  # of all runs of a page: what a phone still searches at once
BYTES = 9_000_000  # of them in the page, packed: with plotly's 2 MB a page stays well below 15 MB
CHUNK = 250  # responses that are unpacked together


@dataclass(frozen=True, slots=True)
class Sampled:
    """`chunks` are gzipped JSON lists of rows, in base64; `shown` of `total` responses, of `steps` steps; `notes` say what is missing."""

    chunks: Sequence[str]
    shown: int
    total: int
    steps: int
    notes: Sequence[str]


def sample_run(run: Path, model: str, responses: int = RESPONSES, size: int = BYTES) -> Sampled:
    """At most so many responses, in at most so many bytes."""
    files, pieces = step_files(run), Pieces(run, model)
    if not files:
        return Sampled((), 0, 0, 0, ("no rollouts were written yet",))
    wanted = max(1, responses // len(files))
    every = -(-len(files) // responses)  # with more steps than responses, not all of them
    total, unreadable = 0, []

    def read(item: tuple[int, Path]) -> tuple[Path, int, list[dict] | None]:
        step, path = item
        found = read_step(step, path)
        return (path, 0, None) if found is None else (path, len(found), rows_of(found, ranked(found)[:wanted], pieces))

    by_step = []
    with ThreadPoolExecutor(2) as pool:  # reading parquet leaves Python's lock
        for path, count, rows in pool.map(read, list(files.items())[::every]):
            total += count
            if rows is None:
                unreadable.append(path.name)
            else:
                by_step.append(rows)
    if every > 1:
        total = sum(map(count_rows, files.values()))
    notes = [f"{', '.join(unreadable[:3])}: not whole, or still being written"] if unreadable else []
    notes += [f"tokens cannot be told apart, so none is shaded: {pieces.why_not}"] if pieces.why_not else []
    chunks, rows = fitted(by_step, size)
    return Sampled(chunks, len(rows), total, len({row["step"] for row in rows}), tuple(notes))


def fitted(by_step: Sequence[list[dict]], size: int) -> tuple[list[str], list[dict]]:
    """The first rows of each step, as many as fit into `size` bytes, packed in chunks; and these rows."""
    keep = max(map(len, by_step), default=0)
    while True:
        rows = [row for found in by_step for row in sorted(found[:keep], key=lambda row: row["row"])]
        chunks = [packed(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
        total = sum(map(len, chunks))
        if total <= size:
            return chunks, rows
        if keep == 1:  # responses so long that not even one a step fits
            by_step = by_step[:: -(-total // size)]
        keep = max(1, min(keep - 1, int(keep * size / total)))


def packed(rows: list[dict]) -> str:
    """Base64, which holds no character that could end a script element."""
    data = json.dumps(rows, separators=(",", ":"), allow_nan=False).encode()
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def ranked(rollouts: StepRollouts) -> list[int]:
    """All rows of a step, the most telling first: the longest, what graders choked on, the least likely, the best and the worst paid;
    then right, wrong and truncated ones in turn, in an order that only a checksum knows."""
    rewards = [reward if reward is not None else 0.0 for reward in rollouts.column("reward")]
    finish, grading = rollouts.column("finish_reason"), rollouts.column("grading")
    everyone = range(len(rollouts))
    first = [max(everyone, key=rollouts.lengths.__getitem__), min(everyone, key=rollouts.logprobs.__getitem__)]
    first += [next(iter(i for i in everyone if grading[i] != "ok"), first[0]), max(everyone, key=rewards.__getitem__)]
    first += [min(everyone, key=rewards.__getitem__), min(everyone, key=rollouts.lengths.__getitem__)]
    kinds: dict[str, list[int]] = {"right": [], "wrong": [], "truncated": []}
    for index in sorted(everyone, key=lambda index: zlib.crc32(f"{rollouts.step}/{index}".encode())):
        kinds["truncated" if finish[index] == "length" else "right" if rewards[index] > 0 else "wrong"].append(index)
    in_turn = [kind[place] for place in range(max(map(len, kinds.values()))) for kind in kinds.values() if place < len(kind)]
    return list(dict.fromkeys([*first, *in_turn]))
