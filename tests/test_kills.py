"""A process killed at any boundary between two writes of a checkpoint leaves one that is whole, and nothing that is in the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow  # 8 s: a process that loads torch, and 40 forks of it
def test_a_kill_at_every_boundary_of_three_saves(tmp_path):
    (tmp_path / "runs").mkdir()
    command = [sys.executable, str(TESTS / "kill_program.py"), str(tmp_path / "runs"), str(tmp_path / "results.json")]
    path = ":".join(map(str, (TESTS.parent, TESTS.parent / "kernels", TESTS)))
    done = subprocess.run(command, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    newest = [result["newest"] for result in results]
    assert newest == sorted(newest) and set(newest) == {0, 2, 4, 6}  # always the one before or the new one
    assert len(results) >= 25
    for result in results:
        assert set(result["before"].values()) <= {None}  # under its name, a checkpoint is whole
        assert not [name for name in result["repaired"] + result["after"] if name.endswith((".tmp", ".flawed"))]
        best = {0: [], 2: ["step_2"]}.get(result["newest"], ["step_4"])
        assert result["after"] == sorted([*["best"] * bool(best), "latest", *best, "step_8"])
        assert result["pointers"] == {"latest": "step_8"} | dict.fromkeys(["best"] * bool(best), *best)


@pytest.mark.long  # 60 s: 20 kills
def test_a_run_killed_at_random_again_and_again_ends_as_an_undisturbed_one(tmp_path):
    program = TESTS.parent / "bench" / "random_kills.py"
    done = subprocess.run([sys.executable, str(program), "20", "7"], cwd=tmp_path, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 kills (" in done.stdout
