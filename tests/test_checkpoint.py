"""A checkpoint's directory is complete or absent and loads as it is; `latest` points to the newest, `best` to the best; old ones go."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastgrpo import checkpoint
from fastgrpo.checkpoint import Checkpoints
from fastgrpo.errors import HealthError, SetupError
from fastgrpo.manifest import flaw
from fastgrpo.progress import Progress
from fastgrpo.resume import newest_valid
from fastgrpo.saved_state import SavedState


class Part:
    """A config or tokenizer that writes one file, counts how often, and can fail after that."""

    def __init__(self, name: str, fails: bool = False):
        self.name, self.fails, self.written = name, fails, 0

    def save_pretrained(self, directory: Path) -> None:
        self.written += 1
        (directory / self.name).write_text(self.name)
        if self.fails:
            raise OSError(28, "No space left on device")


class Weights:
    """A learner as far as a checkpoint needs one."""

    updates = 7

    def __init__(self):
        self.tensors = {"a.weight": torch.arange(6.0), "b.weight": torch.ones(2, 3, dtype=torch.bfloat16)}

    def named_weights(self):
        return iter(self.tensors.items())

    def state(self):
        yield from ((f"master/{name}", tensor.float()) for name, tensor in self.tensors.items())
        yield "step/a.weight", torch.tensor(7.0)


def checkpoints(directory: Path, keep: int = 2, failing: str = "") -> Checkpoints:
    model = SimpleNamespace(config=Part("config", failing == "config"), generation_config=Part("generation"))
    return Checkpoints(directory, model, Part("tokenizer", failing == "tokenizer"), Weights(), keep=keep, facts={"data.json": "{}"})


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def pointed(directory: Path, name: str) -> str:
    assert flaw(directory / name) is None
    return os.readlink(directory / name)


def test_a_saved_policy_loads_as_it_was(tiny_model_dir, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from fastgrpo.config import LossConfig
    from fastgrpo.learner.native import NativeLearner

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model_dir), AutoTokenizer.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    learner = NativeLearner(model, LossConfig(type="dr_grpo"), 1.0, lambda update: 0.0, 1.0)
    path = Checkpoints(tmp_path, model, tokenizer, learner).save(Progress(step=3))
    again = AutoModelForCausalLM.from_pretrained(path)
    assert path == tmp_path / "step_3"
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "latest")("a{é}")["input_ids"] == tokenizer("a{é}")["input_ids"]
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_the_trainers_state_reads_back_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("fastgrpo.saved_state.SHARD_BYTES", 30)  # several files
    saved = checkpoints(tmp_path)
    path = saved.save(Progress(step=2, best=(2, 0.5), rows=4, evaluations={"last": {"greedy": {}}}))
    assert len(list(path.glob("trainer/state-*.safetensors"))) == 2
    state = SavedState(path / "trainer")
    assert set(state.trained()) == {"master/a.weight", "master/b.weight", "step/a.weight"}
    assert all(torch.equal(tensor, state[name]) for name, tensor in saved.learner.state())
    assert torch.equal(state["random/rank_0"], torch.get_rng_state())
    progress = Progress.from_json((path / "trainer" / "progress.json").read_text())
    assert progress == Progress(step=2, updates=7, best=(2, 0.5), rows=4, evaluations={"last": {"greedy": {}}})
    assert (path / "trainer" / "data.json").read_text() == "{}"


@pytest.mark.parametrize(("keep", "left"), [(1, ["step_10"]), (2, ["step_10", "step_4"]), (9, ["step_10", "step_2", "step_4"])])
def test_latest_moves_to_the_newest_and_as_many_stay_as_asked(tmp_path, keep, left):
    saved = checkpoints(tmp_path, keep)
    for step in (2, 4, 10):
        saved.save(Progress(step=step))
        assert pointed(tmp_path, "latest") == f"step_{step}"
    assert files(tmp_path) == ["latest", *left]


def test_the_best_stays_beside_the_newest_until_a_better_one(tmp_path):
    saved = checkpoints(tmp_path, keep=1)
    for step, best in ((5, (5, 0.1)), (10, (5, 0.1)), (15, (5, 0.1))):
        saved.save(Progress(step=step, best=best))
    assert files(tmp_path) == ["best", "latest", "step_15", "step_5"] and pointed(tmp_path, "best") == "step_5"
    saved.save(Progress(step=20, best=(20, 0.3)))
    assert files(tmp_path) == ["best", "latest", "step_20"] and pointed(tmp_path, "best") == "step_20"


def test_a_step_is_written_once(tmp_path):
    saved = checkpoints(tmp_path)
    saved.save(Progress(step=5))
    saved.save(Progress(step=5, best=(5, 0.1)))
    assert saved.tokenizer.written == 1 and pointed(tmp_path, "best") == "step_5"


def test_a_moved_run_keeps_its_latest_and_best(tmp_path):
    (tmp_path / "old").mkdir()
    checkpoints(tmp_path / "old").save(Progress(step=1, best=(1, 0.5)))
    (tmp_path / "old").rename(tmp_path / "new")
    assert (pointed(tmp_path / "new", "best"), pointed(tmp_path / "new", "latest")) == ("step_1", "step_1")


@pytest.mark.parametrize("failing", ["config", "tokenizer"])
def test_a_save_that_fails_leaves_no_step_and_the_old_pointers(failing, tmp_path):
    checkpoints(tmp_path).save(Progress(step=1))
    with pytest.raises(SetupError, match=r"cannot be written: .*No space left"):
        checkpoints(tmp_path, failing=failing).save(Progress(step=2, best=(2, 0.5)))
    assert files(tmp_path) == ["latest", "step_1"] and pointed(tmp_path, "latest") == "step_1"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, value):
    saved = checkpoints(tmp_path)
    saved.save(Progress(step=1))
    saved.learner.tensors["b.weight"][1, 2] = value
    with pytest.raises(HealthError, match=r"b\.weight is not finite; no checkpoint was made"):
        saved.save(Progress(step=2))
    assert files(tmp_path) == ["latest", "step_1"]


def test_older_ones_make_room_on_a_full_disk_but_not_the_newest_and_the_best(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = checkpoints(Path(), keep=9)  # relative, as run_dir is by default
    for step in (1, 2, 3, 4):
        saved.save(Progress(step=step, best=(2, 0.5)))
    usage = iter([0, 0, 10**12])
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=next(usage)))
    saved.save(Progress(step=5, best=(2, 0.5)))
    assert files(tmp_path) == ["best", "latest", "step_2", "step_4", "step_5"]


def test_files_have_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        path = checkpoints(tmp_path).save(Progress(step=1))
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()} == {0o640}


def test_what_a_killed_save_left_behind_is_replaced(tmp_path):
    (tmp_path / "step_2.tmp").mkdir()
    (tmp_path / "step_2.tmp" / "half").write_text("")
    (tmp_path / "latest.tmp").symlink_to("step_1")
    checkpoints(tmp_path).save(Progress(step=2))
    assert files(tmp_path) == ["latest", "step_2"] and "half" not in files(tmp_path / "step_2")


def test_repair_before_going_on(tmp_path):
    saved = checkpoints(tmp_path)
    saved.save(Progress(step=2, best=(2, 0.1)))
    saved.save(Progress(step=4, best=(2, 0.1)))
    (tmp_path / "step_6.tmp").mkdir()
    (tmp_path / "best.tmp").symlink_to("step_4")
    (tmp_path / "best").unlink()
    saved.repair(Progress(step=2, best=(2, 0.1)))  # step_4 turned out flawed
    assert files(tmp_path) == ["best", "latest", "step_2", "step_4.flawed"]
    assert (pointed(tmp_path, "best"), pointed(tmp_path, "latest")) == ("step_2", "step_2")


def test_pointers_of_what_is_gone_are_removed(tmp_path):
    saved = checkpoints(tmp_path, keep=1)
    saved.save(Progress(step=2, best=(2, 0.1)))
    saved.save(Progress(step=4, best=(4, 0.2)))
    saved.repair(Progress(step=3, best=(1, 0.3)))  # neither is here
    assert files(tmp_path) == ["step_4.flawed"]


@pytest.mark.parametrize("boundary", range(1, 11))
def test_a_disk_that_fills_up_at_any_point_leaves_a_whole_checkpoint(tmp_path, monkeypatch, boundary):
    saved = checkpoints(tmp_path, keep=1)
    saved.save(Progress(step=2, best=(2, 0.1)))
    monkeypatch.setenv("FASTGRPO_FAULTS", f"write@{saved._boundaries + boundary}:0:full")
    with pytest.raises(SetupError, match=r"a checkpoint cannot be written: .*No space left"):
        saved.save(Progress(step=4, best=(4, 0.2)))
    assert flaw(newest_valid(tmp_path, print)) is None
    monkeypatch.setenv("FASTGRPO_FAULTS", "")
    saved.save(Progress(step=6, best=(6, 0.3)))
    assert files(tmp_path) == ["best", "latest", "step_6"] and pointed(tmp_path, "best") == pointed(tmp_path, "latest") == "step_6"
