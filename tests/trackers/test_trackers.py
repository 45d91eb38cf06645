"""Trackers, each with its real package in its offline or local mode: the same numbers as metrics.jsonl, and nothing else.

`test_broken_trackers.py` is about what goes wrong.
"""

import json

import pytest
from outcomes import rows
from test_closed import SECRETS, assert_clean
from test_trainer import SMALL, Silent
from trackers.read_back import READERS

from fastgrpo.config import load_config
from fastgrpo.launch import launch
from fastgrpo.trackers.adapters import Mlflow
from fastgrpo.trackers.numbers import flat_numbers


class Listener(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, tiny_model_dir):
    """A run of two steps under all trackers, ended after its first and gone on with: (its directory, its settings, what was said)."""
    folder, listener = tmp_path_factory.mktemp("tracked"), Listener()
    problems = folder / "letters.jsonl"
    problems.write_text("\n".join(json.dumps({"problem": f"The letter {letter}", "answer": letter}) for letter in "abcdef"))
    settings = [*SMALL, f"model={tiny_model_dir}", f"data.train={problems}", f"data.eval={problems}", f"run_dir={folder / 'run'}"]
    settings += ["log.trackers=[tensorboard, wandb, trackio, mlflow]", "checkpoint.every=1", "eval.ways=greedy"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        launch(load_config("tiny", [*settings, "steps=1"]), listener)
        resolved = load_config("tiny", [*settings, "steps=2"])
        launch(resolved, listener, "auto")
    return folder / "run", resolved, listener.notes


@pytest.mark.slow  # 45 s for all of this file
@pytest.mark.parametrize("name", READERS)
def test_each_tracker_receives_the_numbers_of_metrics_jsonl_also_of_a_resumed_run(name, tracked):
    run, _, notes = tracked
    assert not [note for note in notes if "tracker" in note]
    allowed = Mlflow.allowed if name == "mlflow" else str
    written = [(row["step"], flat_numbers(row)) for row in rows(run)]
    wanted = {(step, allowed(key)): number for step, numbers in written for key, number in numbers.items()}
    found, _ = READERS[name](run / "trackers")
    assert {step for step, _ in wanted} == {0, 1, 2} and len(wanted) > 60
    assert found == pytest.approx(wanted, rel=0, abs=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_each_tracker_receives_every_setting(name, tracked):
    run, resolved, _ = tracked
    wanted = json.loads(json.dumps(resolved.values()))
    _, found = READERS[name](run / "trackers")
    assert found.keys() >= wanted.keys()
    later = 2 if name in ("wandb", "trackio") else 1  # the others keep what was said first
    assert {key: value for key, value in found.items() if key in wanted} == wanted | {"steps": later}


@pytest.mark.slow
def test_trackers_keep_no_secret_and_write_into_the_run_directory_alone(tracked):
    run, _, notes = tracked
    assert_clean(run, *notes)
    assert {path.name for path in run.parent.iterdir()} == {"run", "letters.jsonl"}


def test_numbers_have_the_paths_of_their_row():
    row = {
        "step": 3,
        "reward": 0.5,
        "gone": None,
        "best": True,
        "updates": [{"lr": 1e-6}, {"lr": 2}],
        "evaluation": {"greedy": {"a/b": {}}},
    }
    row["evaluation"]["greedy"]["a/b"] = {"accuracy": 1, "pass_at": {1: 0.25}, "note": "text"}
    assert flat_numbers(row) == {
        "reward": 0.5,
        "best": 1.0,
        "updates/0/lr": 1e-6,
        "updates/1/lr": 2.0,
        "evaluation/greedy/a/b/accuracy": 1.0,
        "evaluation/greedy/a/b/pass_at/1": 0.25,
    }


def test_mlflow_gets_names_that_it_allows():
    names = {"a/builtin:b@test/c": "a/builtin:b_test/c", "a//tmp/x.jsonl": "a/tmp/x.jsonl", "a/../é b": "a/__/_ b"}
    assert {name: Mlflow.allowed(name) for name in names} == names
