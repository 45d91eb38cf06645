"""What need not be installed: its tests are skipped and say so, but not where FASTGRPO_REQUIRE_VLLM is set, where all must run."""

import importlib.util
import os

import pytest


def requires(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None and not os.environ.get("FASTGRPO_REQUIRE_VLLM")
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: make install")
