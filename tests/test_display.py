"""What a person sees of a run: whole at 80 columns on a terminal, plain lines without one, and after Ctrl-C how to go on."""

import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pytest
from rich.console import Console
from test_trainer import letter_problems

from fastgrpo.display import PRETRAINING, SHOWN, TRAINING, LiveDisplay

__all__ = ["letter_problems"]
ROOT = Path(__file__).parents[1]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def training_row(step):
    """As wide as a row gets: five-digit steps, long responses, a hundred per cent everywhere."""
    update = {"clip_low": 0.5, "clip_high": 0.5, "entropy": 10.25, "grad_norm": 123.456}
    shares = {"reward": 1.0, "length": 3000.0, "truncated": 1.0, "zero_signal": 1.0}
    return {"step": step, "updates": [update], "seconds": {"sample": 1000.0, "learn": 234.5}, "response_tokens": 10**8, **shares}


def text_row(step):
    return {
        "step": step,
        "loss": 12.3456,
        "tokens": 1_000_000,
        "lr": 1e-5,
        "grad_norm": 123.456,
        "tokens_per_second": 10**6,
        "seconds": {"": 1e4},
    }


@pytest.mark.parametrize(("look", "row"), [(TRAINING, training_row), (PRETRAINING, text_row)], ids=["train", "pretrain"])
def test_the_widest_step_fits_80_columns_without_a_cut(look, row):
    screen = io.StringIO()
    display = LiveDisplay(Console(file=screen, width=80, force_terminal=True, color_system=None), look)
    display.begin("tiny", 99_999)
    for step in range(99_900, 99_900 + 2 * SHOWN):
        display.row(row(step))
    display.end()
    shown = CONTROL.sub("", screen.getvalue()).splitlines()
    last = shown[-SHOWN - 1 :]
    assert last[0].split() == list(look.columns)
    assert [line.split() for line in last[1:]] == [list(look.cells(row(99_900 + step))) for step in range(SHOWN, 2 * SHOWN)]
    assert max(map(len, last)) <= 80


@pytest.fixture
def command(tmp_path, tiny_model_dir, letter_problems):
    sizes = ("steps=100000", "prompts_per_step=4", "samples_per_prompt=4", "updates_per_rollout=1", "max_new_tokens=12", "dtype=float32")
    given = (
        f"model={tiny_model_dir}",
        f"data.train={letter_problems}",
        f"data.eval=[{letter_problems}]",
        "health.steps_without_signal=100000",
    )
    return [sys.executable, "-m", "fastgrpo", "train", "tiny", *sizes, *given, f"run_dir={tmp_path / 'run'}"]


@pytest.mark.slow  # 10 s
def test_on_a_terminal_of_80_columns_a_run_is_seen_and_ctrl_c_says_how_to_go_on(tmp_path, command):
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = os.environ | {"TERM": "xterm", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
    environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    screen, deadline, told = b"", time.monotonic() + 120, False
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    screen += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            if not told and re.search(rb"step [2-9]\d* of 100000", screen):
                os.killpg(process.pid, signal.SIGINT)
                told = True
        assert process.wait(timeout=10) == 75
    finally:
        process.kill()
        process.wait()
    os.close(ours)
    lines = [line for line in CONTROL.sub("", screen.decode(errors="replace")).replace("\r", "\n").splitlines() if "fastgrpo:" not in line]
    tables = [line for line in lines if line.split() and line.split()[0].isdigit()]
    assert tables and all(len(line.split()) == len(TRAINING.columns) and len(line) <= 80 for line in tables)
    said = " ".join(CONTROL.sub("", screen.decode(errors="replace")).split())
    assert f"go on with --resume {tmp_path / 'run'}" in said and "Traceback" not in said


@pytest.mark.slow  # 10 s
def test_without_a_terminal_each_step_is_a_line_of_plain_text(command):
    command = [*command, "steps=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    steps = [line for line in done.stdout.splitlines() if line.startswith("step ") and "  reward " in line]
    assert len(steps) == 2 and all(f"  {name} " in line for line in steps for name in TRAINING.columns[1:])
