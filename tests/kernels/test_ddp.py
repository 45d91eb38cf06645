"""Data-parallel training: the loss inside a wrapped forward, one rank without rows, gradients averaged by the wrapper."""

from pathlib import Path

import pytest
from forked_ranks import run_ranks


@pytest.mark.slow  # 6 s
def test_a_rank_without_rows_takes_part_in_the_average_and_nobody_hangs():
    done = run_ranks(2, Path(__file__).parent / "ddp_program.py")
    assert done.returncode == 0, done.stderr[-3000:]
