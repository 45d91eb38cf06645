"""The benchmarks are found, take part, and render: a directory that pytest silently skips would measure nothing."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
PATHS = [str(BENCH.parent), str(BENCH.parent / "kernels"), os.environ.get("PYTHONPATH", "")]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}  # where nothing is measured
ENVIRONMENT |= {"PYTHONPATH": os.pathsep.join(filter(None, PATHS))}


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
    done = subprocess.run(command, cwd=BENCH.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:]
    spec = importlib.util.spec_from_file_location("table", BENCH / "table.py")
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    text = table.tables(json.loads(results.read_text()))
    assert "no result" in text or "cuda" in text
    assert "| three bare products |" in text and "| fastgrpo |" in text
    (entry,) = (b for b in json.loads(results.read_text())["benchmarks"] if b["params"]["name"] == "fastgrpo")
    assert entry["extra_info"]["rel dX"] < 1e-5


@pytest.mark.long  # 20 to 40 s: three ways to the gradient of one step, and TRL's where it is installed
def test_a_learning_step_is_the_same_work_for_everyone_and_renders(tmp_path):
    ways = ["fastgrpo", "fastgrpo, padded", "fastgrpo, full logits", "TRL", "fastgrpo, attention flash4"]
    command = [
        sys.executable,
        str(BENCH / "learning_step.py"),
        "--silent",
        "0.25",
        "--rounds",
        "1",
        "--out",
        str(tmp_path),
        "--only",
        *ways,
    ]
    done = subprocess.run(command, cwd=BENCH.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = tmp_path.iterdir()
    results = json.loads(file.read_text())
    lines = {way: line for way, line in results["steps"].items() if "skipped" not in line}
    assert set(lines) >= set(ways[:3]) and (importlib.util.find_spec("trl") is None or "TRL" in lines)
    for way in lines.keys() - {"fastgrpo"}:
        assert lines[way]["gradient apart"] < 1e-5 and lines[way]["loss apart"] < 1e-6, way
    assert lines["fastgrpo"]["loss"] != 0
    assert "| fastgrpo, attention flash4 | InputError" in done.stdout or "cuda" in results["device"]
    assert "no result" in done.stdout or "peak GiB" in lines["fastgrpo"]


def test_carried_packages_arrive_as_they_were_packed_and_changed_bytes_are_refused(tmp_path):
    spec = importlib.util.spec_from_file_location("carry", BENCH / "carry.py")
    carry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(carry)
    content, out, site = {"big/data.bin": os.urandom(3_000_000), "vllm/_moe_C.so": b"left out"}, tmp_path / "out", tmp_path / "site"
    out.mkdir()
    wheels = [tmp_path / "big-1-py3-none-any.whl", tmp_path / "small-1-py3-none-any.whl"]
    with zipfile.ZipFile(wheels[0], "w") as big, zipfile.ZipFile(wheels[1], "w") as small:
        for name, data in content.items():
            big.writestr(name, data)
        small.writestr("small-1.data/purelib/small.py", "one = 1")
    carry.strip(wheels[0])
    manifest = carry.cut(wheels, out, 2 * 2**20)
    parts = sorted(out.iterdir())
    assert len(parts) == 2 and all(sum(piece.stat().st_size for piece in part.iterdir()) <= 2 * 2**20 for part in parts)
    for part in parts:
        (part / "manifest.json").write_text(json.dumps(manifest))
    carry.unpack(site, parts)
    assert (site / "big/data.bin").read_bytes() == content["big/data.bin"] and (site / "small.py").read_text() == "one = 1"
    assert not (site / "vllm").exists()
    (piece,) = parts[1].glob("big*")
    piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit, match="big-1"):
        carry.unpack(tmp_path / "other", parts)
