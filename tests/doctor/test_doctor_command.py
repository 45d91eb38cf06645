"""The doctor as a person calls it, with problems planted into the machine itself: environment, limits, packages, mounted file systems."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from in_process import in_process
from optional import requires

from fastgrpo.doctor import smoke
from fastgrpo.doctor.gather import _ranges

ROOT = Path(__file__).parents[2]
VLLM = ("rollout.engine=vllm", "run_dir=runs/mine")


@pytest.fixture
def doctor(tmp_path):
    """Runs it with a clean environment and other variables on top; gives what is left of it, {check: line} and the verdict.

    In a process of its own where something is planted into that: a path in front of others, a call before it, a command around it.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTORCH", "NCCL_"))}

    def run(*arguments: str, first: str = "", before=None, through: tuple[str, ...] = (), **variables: str):
        path = os.pathsep.join(filter(None, [first, str(ROOT), str(ROOT / "kernels")]))
        environment = clean | {"PYTHONPATH": path, "FASTGRPO_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"} | variables
        if first or before or through:
            command = [*through, sys.executable, "-m", "fastgrpo", "doctor", *arguments]
            done = subprocess.run(command, env=environment, cwd=tmp_path, preexec_fn=before, capture_output=True, text=True, timeout=200)
        else:
            with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ, environment, clear=True):
                patch.chdir(tmp_path)
                done = in_process("doctor", *arguments)
        report = json.loads(done.stdout) if "--json" in arguments and done.stdout else {"lines": [], "verdict": ""}
        return done, {line["check"]: line for line in report["lines"]}, report["verdict"]

    return run


@pytest.mark.slow  # 5 s
def test_this_machine_passes_for_the_tiny_recipe(doctor):
    done, lines, verdict = doctor("--json")
    assert done.returncode == 0 and verdict in ("pass", "warn") and done.stderr == ""
    assert {line["verdict"] for check, line in lines.items() if check in ("torch", "transformers", "grading workers")} == {"pass"}
    assert all(bool(line["fix"]) == (line["verdict"] != "pass") for line in lines.values())


@pytest.mark.slow  # 5 s
def test_an_old_vllm_expandable_segments_and_low_limits_are_seen(doctor, tmp_path):
    planted = tmp_path / "planted" / "vllm-0.20.2.dist-info"
    planted.mkdir(parents=True)
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.20.2\n")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done, lines, verdict = doctor(
        *(*VLLM, "--json"),
        first=str(planted.parent),
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, files)),
        PYTORCH_ALLOC_CONF="expandable_segments:True",
    )
    assert done.returncode == 3 and verdict == "fail"
    assert lines["vllm"]["verdict"] == lines["rollouts"]["verdict"] == "fail" and lines["vllm"]["found"].startswith(
        "0.20.2, supported are >=0.26"
    )
    assert lines["vllm"]["fix"].startswith('pip install "vllm>=0.26')
    assert lines["open files"]["found"].startswith("up to 100") and lines["open files"]["verdict"] == "fail"
    assert lines["allocator"]["fix"] == "take expandable_segments out of PYTORCH_ALLOC_CONF" and lines["allocator"]["verdict"] == "fail"


@pytest.mark.slow  # 4 s
def test_a_torch_that_cannot_be_imported_is_told_and_all_else_still_looked_at(doctor, tmp_path):
    (tmp_path / "planted" / "torch").mkdir(parents=True)
    (tmp_path / "planted" / "torch" / "__init__.py").write_text('raise ImportError("libc10_cuda.so: no such file")')
    done, lines, _ = doctor("--json", first=str(tmp_path / "planted"))
    assert done.returncode == 3 and lines["torch"]["found"].endswith("cannot be imported: ImportError: libc10_cuda.so: no such file")
    assert lines["grading workers"]["verdict"] == "pass" and "attention" not in lines
    done, _, _ = doctor("--gpu-smoke", first=str(tmp_path / "planted"))
    assert done.returncode == 3 and done.stderr.startswith("fastgrpo: --gpu-smoke needs torch, which cannot be imported (libc10_cuda.so")


def may_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0 if sys.platform == "linux" else False


@pytest.mark.slow  # 5 s
@pytest.mark.skipif(not may_mount(), reason="mounting needs root")
def test_a_full_disk_and_small_shared_memory_are_seen(doctor, tmp_path):
    (tmp_path / "runs").mkdir()
    mounts = f'mount -t tmpfs -o size=2m none /dev/shm && mount -t tmpfs -o size=1m none {tmp_path}/runs && exec "$@"'
    done, lines, verdict = doctor(*VLLM, "rollout.tensor_parallel=2", "--json", through=("unshare", "--mount", "sh", "-c", mounts, "sh"))
    assert done.returncode == 3 and verdict == "fail"
    assert lines["shared memory"]["found"].startswith("2 MiB free in /dev/shm") and lines["shared memory"]["verdict"] == "fail"
    assert lines["disk: runs"]["found"].startswith(f"0.0 GiB free at {tmp_path}/runs") and lines["disk: runs"]["verdict"] == "fail"
    assert lines["disk: temporary files"]["verdict"] == "pass"


@pytest.mark.slow  # 7 s
def test_a_person_reads_a_table_and_wrong_settings_are_one_line(doctor):
    done, _, _ = doctor("rollout.engine=vllm", NCCL_P2P_DISABLE="1", PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True")
    rows = done.stdout.splitlines()
    at = next(n for n, row in enumerate(rows) if row.startswith("fail  allocator"))
    assert rows[at + 1].strip() == "fix: take expandable_segments out of PYTORCH_CUDA_ALLOC_CONF"
    assert rows[-1].startswith("for tiny: ") and rows[-1].endswith(" fail") and done.returncode == 3
    done, _, _ = doctor("tinny")
    assert done.returncode == 2 and done.stderr.startswith("fastgrpo: no file and no recipe 'tinny'")


@pytest.mark.slow  # 3 s
@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="there is a GPU")
def test_without_a_gpu_the_smoke_run_is_one_line(doctor):
    done, _, _ = doctor("--gpu-smoke")
    assert done.returncode == 3 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastgrpo: --gpu-smoke needs a GPU")


def test_the_supported_ranges_are_those_of_pyproject():
    """What the installed package tells is what pyproject.toml said when it was installed; the engine's own list agrees with it."""
    from packaging.specifiers import SpecifierSet

    from fastgrpo.rollout.process_state import ACCEPTED

    text, ranges = (ROOT / "pyproject.toml").read_text(), _ranges("fastgrpo")
    assert f'"vllm{ranges["vllm"]}"' in text
    assert [f"0.{minor}" for minor in range(100) if f"0.{minor}.0" in SpecifierSet(ranges["vllm"])] == ACCEPTED
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1].isalpha() and ";" not in line)
    assert all(pins[name] in SpecifierSet(wanted) for name, wanted in ranges.items() if name in pins)


def test_the_kernel_probe_tells_right_from_wrong(monkeypatch):
    assert smoke._tried("kernel", lambda: smoke.kernel("cpu"), "fix").verdict == "pass"
    monkeypatch.setattr(smoke, "CLOSEST", 1e-12)
    line = smoke._tried("kernel", lambda: smoke.kernel("cpu"), "look there")
    assert (line.verdict, line.fix) == ("fail", "look there") and "nats from float64" in line.found


@pytest.mark.long  # half a minute: two engines
@requires("vllm")
def test_the_sleep_probe_runs_with_the_real_vllm_where_nothing_really_sleeps():
    code = "from fastgrpo.doctor.smoke import sleep_and_wake as s; print(s('shared', 'cpu')); print(s('push', 'cpu'))"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split(" (")[0] for line in done.stdout.splitlines() if line.startswith("drew")] == ["drew, slept"] * 2
