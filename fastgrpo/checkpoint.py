"""Checkpoints: step_N is a policy in the Hugging Face layout, which `from_pretrained` and vLLM load as it is, and in its folder
`trainer` all that a run needs to go on from there bit for bit.

A directory appears under its final name only when it is complete, flushed and listed in its manifest; then `latest` moves to it.
`best` points to the one with the highest metric so far.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.errors import HealthError, SetupError
from fastgrpo.faults import fault
from fastgrpo.manifest import flush, seal
from fastgrpo.progress import Progress
from fastgrpo.ranks import Ranks
from fastgrpo.saved_state import random_states, require_finite, save_shard, shards

if TYPE_CHECKING:
    from torch import Tensor

    from fastgrpo.learner import Learner

PROGRESS = Path("trainer", "progress.json")
SPARE = 1.2  # times the size of the last checkpoint, that the next one may need


class Checkpoints:
    """The checkpoints of one run, below `directory`. Every rank calls, rank 0 writes.

    `facts` are files of text, by name, that go with the trainer's state. `keep` newest ones stay, and the best. `adapter` is a model with
    LoRA adapters, which are also saved by themselves, as peft does it. `seconds` is what the last one took.
    """

    def __init__(
        self,
        directory: Path,
        model,
        tokenizer,
        learner: Learner,
        ranks: Ranks | None = None,
        keep: int = 2,
        facts: Mapping[str, str] | None = None,
        adapter=None,
    ):
        self.directory, self.model, self.tokenizer, self.learner = directory, model, tokenizer, learner
        self.ranks, self.keep, self.facts, self.adapter = ranks or Ranks(), keep, facts or {}, adapter
        self.seconds = 0.0
        self._boundaries = 0

    def save(self, progress: Progress) -> Path:
        """Writes step_N for the step of `progress`, unless it is there, moves the pointers, and removes what need not be kept.

        Raises, on every rank, HealthError where a weight is not finite, and SetupError where the files cannot be written, also after
        older checkpoints made room; nothing is left under the name then, and the pointers stay.
        """
        started, final = time.monotonic(), self.directory / f"step_{progress.step}"
        progress.updates, unfinished = self.learner.updates, final.with_name(final.name + ".tmp")
        writing = _Attempts(self.ranks.first)
        if not self.ranks.gather(final.exists())[0]:
            self._write(progress, unfinished, writing)
        writing(self._publish, final, progress)
        failure = self.ranks.gather(writing.failure)[0]
        if failure is not None:
            if self.ranks.first:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise failure
        self.seconds = time.monotonic() - started
        return final

    def repair(self, progress: Progress | None) -> None:
        """Undoes what a killed process left half done, before a run goes on from `progress`. Later checkpoints, which are flawed then,
        are put aside as step_N.flawed."""
        if not self.ranks.first or progress is None:
            return
        self._clear()
        for step, path in steps(self.directory):
            if step > progress.step:
                aside = path.with_name(path.name + ".flawed")
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(path, aside)
        for name, step in (("latest", progress.step), ("best", progress.best and progress.best[0])):
            if (self.directory / f"step_{step}").exists():
                self._point(name, f"step_{step}")
            else:
                (self.directory / name).unlink(missing_ok=True)

    def _write(self, progress: Progress, unfinished: Path, writing: _Attempts) -> None:
        """Every rank walks through all tensors, whatever happens to rank 0's files."""
        writing(self._make_room)
        policy = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.learner.named_weights() if self.ranks.first}
        trainer = unfinished / "trainer"
        writing(lambda: trainer.mkdir(parents=True))
        writing(save_policy, unfinished, self.model, self.tokenizer, policy)
        del policy
        if self.adapter is not None:
            from fastgrpo.learner.lora import save_adapter

            writing(save_adapter, self.adapter, unfinished / "adapter")
        writing(self._passed)
        for name, shard in shards(chain(self.learner.state(), random_states(self.ranks)), self.ranks.first):
            writing(save_shard, shard, trainer / name)
            writing(self._passed)
        for name, text in self.facts.items():
            writing((trainer / name).write_text, text)
        writing((unfinished / PROGRESS).write_text, progress.to_json())
        writing(self._passed)
        writing(seal, unfinished)
        writing(self._passed)

    def _publish(self, final: Path, progress: Progress) -> None:
        if not final.exists():
            os.replace(final.with_name(final.name + ".tmp"), final)
            flush(self.directory)
            self._passed()
        self._point("latest", final.name)
        best = progress.best and progress.best[0]
        if best == progress.step:
            self._point("best", final.name)
        newest = [step for step, _ in steps(self.directory)][: self.keep]
        for step, path in steps(self.directory):
            if step not in newest and step != best:
                self._remove(path)

    def _clear(self) -> None:
        for path in self.directory.glob("*.tmp"):
            path.unlink() if path.is_symlink() else shutil.rmtree(path)

    def _make_room(self) -> None:
        """Removes what an earlier attempt left, and older checkpoints, but for the newest and the best, where the disk is too full."""
        self._clear()
        older = [path for _, path in steps(self.directory)]
        if older:
            needed = SPARE * sum(path.stat().st_size for path in older[0].rglob("*") if path.is_file())
            best = (self.directory / "best").resolve()
            for path in (path for path in reversed(older[1:]) if path.resolve() != best):
                if shutil.disk_usage(self.directory).free < needed:
                    self._remove(path)

    def _remove(self, path: Path) -> None:
        going = path.with_name(path.name + ".tmp")
        os.replace(path, going)  # first, so that no half of it is ever found under its name
        self._passed()
        shutil.rmtree(going)

    def _point(self, name: str, target: str) -> None:
        pointer = self.directory / f"{name}.tmp"
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(target)
        self._passed()
        os.replace(pointer, self.directory / name)
        self._passed()

    def _passed(self) -> None:
        """A point between two writes of rank 0, where tests kill the process."""
        self._boundaries += 1
        fault("write", self._boundaries)


class _Attempts:
    """Does one thing after the other, on the first rank, until one fails; `failure` is the error to raise for it."""

    def __init__(self, here: bool):
        self.here, self.failure = here, None

    def __call__(self, action: Callable[..., object], *arguments: object) -> None:
        from safetensors import SafetensorError

        if self.here and self.failure is None:
            try:
                action(*arguments)
            except HealthError as error:
                self.failure = error
            except (OSError, SafetensorError) as error:
                self.failure = SetupError(f"a checkpoint cannot be written: {error}")


def steps(directory: Path) -> list[tuple[int, Path]]:
    """The checkpoints below `directory` by their names, the newest first."""
    found = ((path.name.removeprefix("step_"), path) for path in directory.glob("step_*") if path.is_dir())
    return sorted(((int(number), path) for number, path in found if number.isdecimal()), reverse=True)


def save_policy(unfinished: Path, model, tokenizer, weights: Mapping[str, Tensor]) -> None:
    """Weights as safetensors, config and tokenizer. Raises HealthError where a weight is not finite."""
    from huggingface_hub import save_torch_state_dict

    require_finite(weights.items())
    save_torch_state_dict(dict(weights), unfinished)  # save_pretrained of the model would import DeepSpeed, where it is installed
    for part in (model.config, model.generation_config, tokenizer):
        part.save_pretrained(unfinished)
