"""A checkpoint's directory is complete or absent and loads as it is; `latest` points to the newest, `best` to the best by its metric."""

from pathlib import Path

import pytest

from fastgrpo.checkpoint import Checkpoints


class Part:
    """A model or tokenizer that writes one file, counts how often, and can fail after that."""

    def __init__(self, name: str, fails: bool = False):
        self.name, self.fails, self.written = name, fails, 0

    def save_pretrained(self, directory: Path, state_dict=None) -> None:
        self.written += 1
        directory.mkdir(exist_ok=True)
        (directory / self.name).write_text(self.name)
        if self.fails:
            raise OSError("disk full")


def checkpoints(directory: Path, failing: str = "") -> Checkpoints:
    return Checkpoints(directory, Part("model", failing == "model"), Part("tokenizer", failing == "tokenizer"), weights=lambda: iter(()))


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def pointed(directory: Path, name: str) -> str:
    assert files(directory / name) == ["model", "tokenizer"]
    return (directory / name).resolve().name


def test_a_saved_policy_loads_as_it_was(tiny_model_dir, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model_dir), AutoTokenizer.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    path = Checkpoints(tmp_path, model, tokenizer, model.named_parameters).save(3)
    again = AutoModelForCausalLM.from_pretrained(path)
    assert path == tmp_path / "step_3"
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "latest")("a{é}")["input_ids"] == tokenizer("a{é}")["input_ids"]


def test_latest_moves_to_the_newest_and_older_ones_stay(tmp_path):
    saved = checkpoints(tmp_path)
    for step in (2, 4, 10):
        saved.save(step)
        assert pointed(tmp_path, "latest") == f"step_{step}"
    assert files(tmp_path) == ["latest", "step_10", "step_2", "step_4"]


def test_the_best_is_strictly_better_and_replaces_the_former(tmp_path):
    saved = checkpoints(tmp_path)
    kept = [saved.keep_best(step, metric) for step, metric in ((0, 0.2), (5, 0.2), (10, 0.1), (15, 0.4), (20, 0.3), (25, 0.5))]
    assert kept == [True, False, False, True, False, True]
    assert files(tmp_path) == ["best", "step_25"] and pointed(tmp_path, "best") == "step_25"
    assert saved.model.written == 3  # what is not better is not written


def test_a_former_best_that_was_due_by_itself_stays(tmp_path):
    saved = checkpoints(tmp_path)
    saved.keep_best(5, 0.1)
    saved.save(5)
    saved.save(10)
    saved.keep_best(10, 0.2)
    saved.keep_best(15, 0.3)
    assert files(tmp_path) == ["best", "latest", "step_10", "step_15", "step_5"]
    assert (pointed(tmp_path, "best"), pointed(tmp_path, "latest")) == ("step_15", "step_10")
    assert saved.model.written == saved.tokenizer.written == 3  # a step that is best and due is written once


def test_a_moved_run_keeps_its_latest_and_best(tmp_path):
    (tmp_path / "old").mkdir()
    saved = checkpoints(tmp_path / "old")
    saved.save(1)
    saved.keep_best(1, 0.5)
    (tmp_path / "old").rename(tmp_path / "new")
    assert (pointed(tmp_path / "new", "best"), pointed(tmp_path / "new", "latest")) == ("step_1", "step_1")


@pytest.mark.parametrize("failing", ["model", "tokenizer"])
def test_a_save_that_fails_leaves_no_step_and_the_old_pointers(failing, tmp_path):
    checkpoints(tmp_path).save(1)
    broken = checkpoints(tmp_path, failing)
    for attempt in (lambda: broken.save(2), lambda: broken.keep_best(2, 0.5)):
        with pytest.raises(OSError, match="disk full"):
            attempt()
        assert not (tmp_path / "step_2").exists() and not (tmp_path / "best").exists()
        assert pointed(tmp_path, "latest") == "step_1"


def test_a_removal_that_is_cut_short_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    saved = checkpoints(tmp_path)
    saved.keep_best(1, 0.1)

    def cut_short(path):
        (path / "model").unlink()
        raise OSError("killed")

    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors=False: None if ignore_errors else cut_short(path))
    with pytest.raises(OSError, match="killed"):
        saved.keep_best(2, 0.2)
    assert not (tmp_path / "step_1").exists() and pointed(tmp_path, "best") == "step_2"


def test_what_a_killed_save_left_behind_is_replaced(tmp_path):
    (tmp_path / "step_2.tmp").mkdir()
    (tmp_path / "step_2.tmp" / "half").write_text("")
    (tmp_path / "latest.tmp").symlink_to("step_1")
    checkpoints(tmp_path).save(2)
    assert files(tmp_path) == ["latest", "step_2"]
    assert pointed(tmp_path, "latest") == "step_2"
