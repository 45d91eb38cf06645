"""A launcher that is told to stop has its ranks save together, and one that is killed leaves none behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from test_trainer import letter_problems

__all__ = ["letter_problems"]
pytestmark = pytest.mark.slow  # 45 s together


@pytest.fixture
def start(tmp_path, tiny_model_dir, letter_problems):
    """Starts `fastgrpo train --gpus 2` in this directory; gives back the process."""
    given = [f"model={tiny_model_dir}", f"data.train={letter_problems}", "data.eval=[]", "run_dir=run", "max_new_tokens=12", "template=no"]
    given += ["steps=40", "prompts_per_step=6", "samples_per_prompt=4", "updates_per_rollout=1", "loss.truncation=keep", "dtype=float32"]
    given += ["checkpoint.every=0", "reward.preflight=false", "health.steps_without_signal=99"]

    def of(*options: str, ranks: int = 2) -> subprocess.Popen:
        command = [sys.executable, "-m", "fastgrpo", "train", *given, "--gpus", str(ranks), *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    return of


def wait_for_steps(metrics: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_bytes().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_ranks_save_together_when_their_launcher_is_told_to_stop(start, tmp_path, number):
    run = tmp_path / "run"
    with start() as process:
        wait_for_steps(run / "metrics.jsonl", 2)
        process.send_signal(number)
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 75
    (step,) = [int(path.name.removeprefix("step_")) for path in (run / "checkpoints").glob("step_*")]
    assert 2 <= step < 40
    assert f"{signal.Signals(number).name}: saved after step {step}; go on with --resume run" in errors and "Traceback" not in errors
    with start("--resume", "auto", f"steps={step + 2}") as process:
        assert process.wait(timeout=120) == 0, process.stderr.read()
    if number != signal.SIGTERM:  # 25 s more, of what the tests of resuming look at too
        resumed = load_file(run / "checkpoints" / "latest" / "model.safetensors")
        (tmp_path / "run").rename(tmp_path / "stopped")
        with start(f"steps={step + 2}") as process:
            assert process.wait(timeout=120) == 0
        straight = load_file(run / "checkpoints" / "latest" / "model.safetensors")
        assert all((resumed[name] == tensor).all() for name, tensor in straight.items())


def test_no_rank_outlives_a_killed_launcher(start, tmp_path):
    with start() as process:
        wait_for_steps(tmp_path / "run" / "metrics.jsonl", 1)
        ranks = [child for child in psutil.Process(process.pid).children() if "train" in child.cmdline()]
        assert len(ranks) == 2
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(ranks, timeout=20)
        assert not alive
