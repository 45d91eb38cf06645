"""`fastgrpo train` as a shell, a queue or a person at the keyboard ends it: exit codes, and what is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_trainer import letter_problems

from fastgrpo.checkpoint import steps
from fastgrpo.manifest import flaw

__all__ = ["letter_problems"]
ROOT = Path(__file__).parents[1]
SETTINGS = ("dtype=float32", "steps=100000", "prompts_per_step=4", "samples_per_prompt=4", "updates_per_rollout=1", "max_new_tokens=12")


@pytest.fixture
def running(tmp_path, tiny_model_dir, letter_problems):
    """Starts a run without end that has reward processes, in a process group of its own; gives it back after some steps."""
    rewards, started = tmp_path / "rewards.py", []
    rewards.write_text("import zlib\ndef even(completions):\n    return [zlib.crc32(text.encode()) % 2 for text in completions]\n")

    def start(*settings, faults=""):
        given = (f"model={tiny_model_dir}", f"data.train={letter_problems}", "data.eval=[]", f"reward.function={rewards}:even")
        command = [sys.executable, "-m", "fastgrpo", "train", "tiny", *SETTINGS, *given, f"run_dir={tmp_path / 'run'}", *settings]
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}",
            "OMP_NUM_THREADS": "1",
            "FASTGRPO_FAULTS": faults,
        }
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
        started.append(process)
        deadline = time.monotonic() + 60
        while len(lines(tmp_path / "run")) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines(directory):
    metrics = directory / "metrics.jsonl"
    return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []


@pytest.mark.slow  # 8 s each
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves_and_ends_with_75(tmp_path, running, number):
    """As Ctrl-C does, and `timeout`, which signals the process once more by itself."""
    process = running("checkpoint.every=0")
    os.killpg(process.pid, number)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert f"fastgrpo: {number.name}: saving" in said and "Traceback" not in said
    ((step, path),) = steps(tmp_path / "run" / "checkpoints")
    assert flaw(path) is None and lines(tmp_path / "run")[-1]["step"] == step
    assert {found["grading"] for found in graded(tmp_path / "run", step)} == {"ok"}


@pytest.mark.slow  # 8 s
def test_a_second_signal_ends_at_once_and_what_is_left_is_whole(tmp_path, running):
    process = running("checkpoint.every=1", faults="sample@4:0:hang")
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=5)
    assert process.returncode == 143
    assert [(step, flaw(path)) for step, path in steps(tmp_path / "run" / "checkpoints")] == [(3, None), (2, None)]


def graded(directory, step):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(directory / "rollouts" / f"step_{step:06d}.parquet").to_pylist()
