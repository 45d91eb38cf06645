"""Trackers as mirrors: what metrics.jsonl holds is also shown in TensorBoard, Weights & Biases, trackio or MLflow, and never needed there.

Each tracker lives in a process of its own, so that what it prints, hooks, leaks, or dies of is no part of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from fastgrpo.errors import SetupError


def require_installed(names: Sequence[str]) -> None:
    """Raises SetupError for a tracker whose package, which has its name, is not there."""
    for name in names:
        if find_spec(name) is None:
            raise SetupError(f"log.trackers names {name}, which is not installed: {pip_line(name)}")


def pip_line(name: str) -> str:
    return f'pip install "fastgrpo[{name}]"'
