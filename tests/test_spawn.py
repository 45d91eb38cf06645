"""What is refused before any rank is started."""

import pytest
import torch
from typer.testing import CliRunner

from fastgrpo.cli import app
from fastgrpo.errors import InputError, SetupError
from fastgrpo.ranks import require_gpus
from fastgrpo.spawn import run_ranks


def test_fewer_gpus_than_ranks_are_named_at_once(monkeypatch):
    require_gpus(99)  # on a CPU there may be any number
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,5")
    require_gpus(2)
    with pytest.raises(SetupError, match=r"3 ranks .* need a GPU each, and 2 can be seen \(CUDA_VISIBLE_DEVICES 0,5\)"):
        run_ranks(3, [])


def test_two_launchers_at_once_are_one_too_many(monkeypatch):
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "0"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="a launcher has started 4 already"):
        CliRunner().invoke(app, ["train", "tiny", "--gpus", "2"], catch_exceptions=False)
