"""Data-parallel training: the loss inside a wrapped forward, one rank without rows, gradients averaged by the wrapper."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow  # 6 s
def test_a_rank_without_rows_takes_part_in_the_average_and_nobody_hangs():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parents[1] / "kernels")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launcher, str(TESTS / "ddp_program.py")], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
