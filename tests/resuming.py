"""Runs of six steps with checkpoints and evaluations, to be interrupted and resumed in this process: fixtures for several files."""

import json
from pathlib import Path

import pytest
from outcomes import outcome, rows
from test_trainer import SMALL, Silent, easy_reward

from fastgrpo.config import load_config
from fastgrpo.launch import launch

__all__ = ["rows"]
STEPS = (
    *SMALL,
    *("steps=6", "updates_per_rollout=2", "checkpoint.every=3", "eval.every=2", "eval.ways=[greedy,sampled]"),
    *("checkpoint.best=sampled_average", "sampling.refill=1"),
)


class Listener(Silent):
    """Remembers what was said."""

    def __init__(self):
        self.notes: list[str] = []

    def note(self, text):
        self.notes.append(text)


class Runs:
    """Starts runs below `folder`: `runs(NAME, SETTING, ...)` gives what was said, one note a line."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.settings = folder, (*STEPS, f"model={model}", "data.train=letters.jsonl", "data.eval=[letters.jsonl]")
        self.write_problems("abcdefgh")

    def write_problems(self, letters: str) -> None:
        problems = [{"problem": rf"The letter is \boxed{{{letter}" * 2, "answer": letter} for letter in letters]
        (self.folder / "letters.jsonl").write_text("\n".join(map(json.dumps, problems)))

    def __call__(self, name, *settings, resume="never", faults="", allowed=False) -> str:
        listener = Listener()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTGRPO_FAULTS", faults)
            patch.chdir(self.folder)
            own = () if name is None else (f"run_dir={self.folder / name}",)
            launch(load_config("tiny", [*self.settings, *own, *settings]), listener, str(resume), allowed)
        return "\n".join(listener.notes)

    def __truediv__(self, name) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model_dir):
    """The outcome of a run that nothing happens to."""
    runs = Runs(tmp_path_factory.mktemp("undisturbed"), tiny_model_dir)
    with pytest.MonkeyPatch.context() as patch:
        easy_reward.__wrapped__(patch)
        runs("run")
    return outcome(runs / "run")


@pytest.fixture
def runs(tmp_path, tiny_model_dir, easy_reward):
    return Runs(tmp_path, tiny_model_dir)
