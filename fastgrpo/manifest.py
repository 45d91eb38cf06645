"""What makes a directory of files trustworthy: a list of their sizes and hashes, written last, when all else is on the disk."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MANIFEST = Path("trainer", "manifest.json")
CHUNK = 1 << 22


def seal(directory: Path) -> None:
    """Flushes every file below `directory` to the disk, and writes its manifest. Files get the rights that the user's umask leaves."""
    files, rights = _files(directory), rights_of_files()
    for name in files:
        (directory / name).chmod(rights)  # safetensors gives files to the owner alone
    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock
        hashes = list(pool.map(lambda name: sha256(directory / name, flush=True), files))
    sizes = [(directory / name).stat().st_size for name in files]
    entries = {name: {"bytes": size, "sha256": found} for name, size, found in zip(files, sizes, hashes, strict=True)}
    (directory / MANIFEST).write_text(json.dumps({"files": entries}, indent=1) + "\n")
    for path in (directory / MANIFEST, directory / MANIFEST.parent, directory):
        flush(path)


def flaw(directory: Path) -> str | None:
    """What is wrong with a sealed directory, naming the file; None if nothing is."""

    def found(name: str) -> str:
        try:
            return sha256(directory / name)
        except OSError as error:  # a bad disk
            return f"{error}"

    try:
        entries = json.loads((directory / MANIFEST).read_text())["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, (size, _) in expected.items():  # cheap, before any hashing
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    with ThreadPoolExecutor() as pool:
        hashes = zip(expected.items(), pool.map(found, expected), strict=True)
        return next((f"{name} is corrupted" for (name, (_, want)), got in hashes if got != want), None)


def sha256(path: Path, flush: bool = False) -> str:
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        digest = hashlib.sha256()
        while part := file.read(CHUNK):
            digest.update(part)
        return digest.hexdigest()


def flush(path: Path) -> None:
    """Makes what was written to a file, or the names in a directory, survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rights_of_files() -> int:
    """What the user's umask leaves."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _files(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
