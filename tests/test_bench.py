"""The benchmarks are found, take part, and render: a directory that pytest silently skips would measure nothing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


def test_pytest_finds_the_benchmarks():
    command = [sys.executable, "-m", "pytest", str(BENCH), "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=120).stdout
    for contestant in ("fastgrpo", "eager torch", "Liger fused GRPO", "three bare products"):
        assert f"policy loss-{contestant}-" in listed


@pytest.mark.slow  # 25 s: one contestant and the roofline, small shapes
def test_a_benchmark_runs_checks_its_gradients_and_renders(tmp_path):
    results = tmp_path / "results.json"
    chosen = "policy and not silent and (fastgrpo or products)"
    command = [sys.executable, "-m", "pytest", str(BENCH), "-q", "-k", chosen, f"--benchmark-json={results}", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:]
    spec = importlib.util.spec_from_file_location("table", BENCH / "table.py")
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    text = table.tables(json.loads(results.read_text()))
    assert "no result" in text or "cuda" in text
    assert "| three bare products |" in text and "| fastgrpo |" in text
    (entry,) = (b for b in json.loads(results.read_text())["benchmarks"] if b["params"]["name"] == "fastgrpo")
    assert entry["extra_info"]["rel dX"] < 1e-5
