"""The examples of docs/examples run as they stand, and their policies learn."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.slow  # 5 s and 20 s
@pytest.mark.parametrize("name", ["plain_pytorch", "hf_trainer"])
def test_an_example_learns(name):
    pytest.importorskip("accelerate")
    rewards = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]()
    assert rewards[0] < 0.15 and sum(rewards[-3:]) / 3 > 0.4, rewards
