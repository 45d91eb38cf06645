"""A checkpoint's directory is complete or absent, loads as it is, and `latest` points to the newest."""

from pathlib import Path

import pytest

from fastgrpo.checkpoint import save_policy


class Part:
    """A model or tokenizer that writes one file, and can fail after that."""

    def __init__(self, name: str, fails: bool = False):
        self.name, self.fails = name, fails

    def save_pretrained(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / self.name).write_text(self.name)
        if self.fails:
            raise OSError("disk full")


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_saved_policy_loads_as_it_was(tiny_model_dir, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model_dir), AutoTokenizer.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    path = save_policy(tmp_path, 3, model, tokenizer)
    again = AutoModelForCausalLM.from_pretrained(path)
    assert path == tmp_path / "step_3"
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "latest")("a{é}")["input_ids"] == tokenizer("a{é}")["input_ids"]


def test_latest_moves_to_the_newest_and_older_ones_stay(tmp_path):
    for step in (2, 4, 10):
        save_policy(tmp_path, step, Part("model"), Part("tokenizer"))
        assert (tmp_path / "latest").resolve() == (tmp_path / f"step_{step}").resolve()
    assert files(tmp_path) == ["latest", "step_10", "step_2", "step_4"]
    assert files(tmp_path / "step_2") == ["model", "tokenizer"]


def test_a_moved_run_keeps_its_latest(tmp_path):
    (tmp_path / "old").mkdir()
    save_policy(tmp_path / "old", 1, Part("model"), Part("tokenizer"))
    (tmp_path / "old").rename(tmp_path / "new")
    assert files(tmp_path / "new" / "latest") == ["model", "tokenizer"]


@pytest.mark.parametrize("failing", ["model", "tokenizer"])
def test_a_save_that_fails_leaves_no_step_and_the_old_latest(failing, tmp_path):
    save_policy(tmp_path, 1, Part("model"), Part("tokenizer"))
    with pytest.raises(OSError, match="disk full"):
        save_policy(tmp_path, 2, Part("model", failing == "model"), Part("tokenizer", failing == "tokenizer"))
    assert not (tmp_path / "step_2").exists()
    assert (tmp_path / "latest").resolve().name == "step_1"


def test_what_a_killed_save_left_behind_is_replaced(tmp_path):
    (tmp_path / "step_2.tmp").mkdir()
    (tmp_path / "step_2.tmp" / "half").write_text("")
    (tmp_path / "latest.tmp").symlink_to("step_1")
    save_policy(tmp_path, 2, Part("model"), Part("tokenizer"))
    assert files(tmp_path) == ["latest", "step_2"]
    assert files(tmp_path / "latest") == ["model", "tokenizer"]
