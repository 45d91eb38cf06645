"""All that a run leaves behind, without its times: what must be equal, bit for bit, however often the run was interrupted."""

import json
import os
from pathlib import Path

import pyarrow.parquet
import torch
from safetensors.torch import load_file

from fastgrpo.manifest import flaw
from fastgrpo.saved_state import SavedState


def outcome(directory: Path, but: tuple[str, ...] = ("random",)) -> dict:
    """Tensors as bytes, by name, without those that start with one of `but`; rows, responses, evaluations, pointers.

    torch's random state is one of the process, which several runs of a test share: it is left out unless asked for.
    """
    latest = directory / "checkpoints" / "latest"
    assert flaw(latest) is None and not list(directory.glob("checkpoints/*.tmp"))
    summary = json.loads((directory / "summary.json").read_text())
    return {
        "weights": as_bytes(load_file(latest / "model.safetensors")),
        "state": as_bytes({name: tensor for name, tensor in SavedState(latest / "trainer").items() if not name.startswith(but)}),
        "rows": [{name: value for name, value in row.items() if name != "seconds"} for row in rows(directory)],
        "rollouts": tables(directory / "rollouts"),
        "evals": tables(directory / "evals"),
        "pointers": {name: os.readlink(found) for name in ("latest", "best") if (found := directory / "checkpoints" / name).exists()},
        "summary": {name: value for name, value in summary.items() if name != "seconds"},
    }


def rows(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def tables(folder: Path) -> dict[str, list[dict]]:
    return {path.name: pyarrow.parquet.read_table(path).to_pylist() for path in sorted(folder.glob("*.parquet"))}


def as_bytes(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}


def differences(one: dict, other: dict) -> list[str]:
    """Which parts of two outcomes differ: comparing them whole would print all of them."""
    return [part for part in one if one[part] != other[part]]
