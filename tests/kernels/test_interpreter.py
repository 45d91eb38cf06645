"""Runs the tests of `gpu_path/` in a process of their own, because triton's interpreter cannot be switched on in a running one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parent / "gpu_path"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_row_kernel_and_the_gpu_path_pass_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", str(FOLDER), "-q", "--tb=short", "-p", "no:cacheprovider", "-W", "ignore"]
    ran = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=FOLDER.parents[2], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout and "skipped" not in ran.stdout.splitlines()[-1], ran.stdout[-500:]


def test_the_interpreter_is_not_on_in_this_process():
    assert os.environ.get("TRITON_INTERPRET") in (None, "", "0")
