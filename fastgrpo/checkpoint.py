"""Checkpoints in the Hugging Face layout: `from_pretrained` and vLLM load a step's directory as it is.

A directory appears under its final name only when it is complete; `latest` points to the newest, `best` to the one with the highest
metric so far.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor

    Weights = Callable[[], Iterator[tuple[str, Tensor]]]


class Checkpoints:
    """The checkpoints of one run, below `directory`: step_N for each step saved. Every rank calls, rank 0 writes.

    `weights` gives the names and tensors to save, each of which may be whole only until the next is asked for.
    """

    def __init__(self, directory: Path, model, tokenizer, weights: Weights, ranks: Ranks | None = None):
        self.directory, self.model, self.tokenizer = directory, model, tokenizer
        self.weights, self.ranks = weights, ranks or Ranks()
        self.best: tuple[int, float] | None = None
        self._due: set[int] = set()

    def save(self, step: int) -> Path:
        """Writes step_N (weights as safetensors, config, tokenizer), unless it is there, and returns it."""
        self._due.add(step)
        path = self._write(step)
        self._point("latest", path)
        return path

    def keep_best(self, step: int, metric: float) -> bool:
        """Whether `metric` beats every earlier one; then step_N is the best checkpoint, and the former goes unless it was due by itself."""
        if self.best is not None and metric <= self.best[1]:
            return False
        former, self.best = self.best, (step, metric)
        self._point("best", self._write(step))
        if self.ranks.first and former is not None and former[0] not in self._due:
            self._remove(self.directory / f"step_{former[0]}")
        return True

    def _write(self, step: int) -> Path:
        final = self.directory / f"step_{step}"
        kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.weights() if self.ranks.first}
        if self.ranks.first and not final.exists():
            save_policy(final, self.model, self.tokenizer, kept)
        return final

    def _remove(self, path: Path) -> None:
        going = path.with_name(path.name + ".tmp")
        os.replace(path, going)  # first, so that no half of it is ever found under its name
        shutil.rmtree(going)

    def _point(self, name: str, target: Path) -> None:
        if not self.ranks.first:
            return
        pointer = self.directory / f"{name}.tmp"
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(target.name)
        os.replace(pointer, self.directory / name)


def save_policy(final: Path, model, tokenizer, weights: Mapping[str, Tensor]) -> None:
    """Writes weights as safetensors, config and tokenizer to the directory `final`, which appears whole or not at all."""
    unfinished = final.with_name(final.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished, state_dict=dict(weights))
    tokenizer.save_pretrained(unfinished)
    os.replace(unfinished, final)
