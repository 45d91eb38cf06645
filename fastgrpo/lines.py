"""A file of JSON lines that only grows: a full disk delays lines instead of losing them, and a torn last line is no line."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from fastgrpo.faults import fault


class Lines:
    """Appends to `path`. What could not be written stays in memory, in order, and is tried again with the next line."""

    def __init__(self, path: Path):
        self.file = path.open("ab", buffering=0)
        self.waiting = b""

    def append(self, row: dict) -> OSError | None:
        """Writes one line, after those that wait; the error where they have to wait (longer)."""
        self.waiting += json.dumps(row).encode() + b"\n"
        try:
            fault("metrics", row.get("step", 0))
            self._write()
        except OSError as error:
            return error
        return None

    def flush(self) -> None:
        """What waits is tried again, and what was written survives a loss of power."""
        with contextlib.suppress(OSError):
            self._write()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        if not self.file.closed:
            self.flush()
            self.file.close()

    def _write(self) -> None:
        if self.waiting:
            self.waiting = self.waiting[self.file.write(self.waiting) :]
            if self.waiting:  # the disk took a part: the next attempt fails and says why
                self.waiting = self.waiting[self.file.write(self.waiting) :]


def read_lines(path: Path) -> list[dict]:
    """The rows of such a file; a last line that a killed process left unfinished is not one."""
    return [json.loads(line) for line in _whole(path)]


def cut_lines(path: Path, rows: int, into: Path) -> int:
    """`into` becomes the first `rows` lines of `path`, in one step; how many there were of them."""
    temporary, kept = into.with_name(into.name + ".tmp"), _whole(path)[:rows]
    temporary.write_bytes(b"".join(kept))
    os.replace(temporary, into)
    return len(kept)


def _whole(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
