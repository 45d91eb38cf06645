"""The operating system: shared memory, limits of processes, memory, disks, and whether grading workers do their work."""

from __future__ import annotations

from fastgrpo.config import Config
from fastgrpo.doctor.facts import Disk, Facts
from fastgrpo.doctor.lines import FAIL, PASS, WARN, Line
from fastgrpo.errors import InputError
from fastgrpo.plan.shapes import shape_of

SHARED = 1.0  # GiB: what NCCL's own troubleshooting page gives a container
FEW_FILES, USUAL_FILES = 128, 1024
FEW_PROCESSES, USUAL_PROCESSES = 256, 1024
FILES, PROCESSES = "a run with vLLM has some 60 open", "each thread of each program of this user counts"
LOCKED = 0.0625  # GiB: InfiniBand locks its buffers
LITTLE_MEMORY = 4.0  # GiB
SMALL_DISK, FEW_INODES = 1.0, 1000
MASTERS = 12  # bytes of a parameter in a checkpoint's optimizer state: float32 weight and two moments


def system(facts: Facts, config: Config) -> list[Line]:
    if facts.system == "Linux":
        return [Line("system", PASS, f"Linux, {facts.cores} CPU cores")]
    if facts.system == "Darwin":
        return [Line("system", WARN, "macOS, on which nothing was tested", "a Linux machine or container")]
    return [Line("system", FAIL, f"{facts.system} cannot fork, and grading workers are forked", "Linux; on Windows, WSL 2")]


def shared_memory(facts: Facts, config: Config) -> list[Line]:
    several = len(facts.gpus) > 1 or config.rollout.tensor_parallel > 1
    if facts.shared_memory is not None and facts.shared_memory >= SHARED:
        return [Line("shared memory", PASS, f"{facts.shared_memory:.1f} GiB free in /dev/shm")]
    found = "no /dev/shm" if facts.shared_memory is None else f"{facts.shared_memory * 1024:.0f} MiB free in /dev/shm"
    fix = "docker run --shm-size=8g (or --ipc=host); outside containers: mount -o remount,size=8G /dev/shm"
    return [Line("shared memory", FAIL if several else WARN, f"{found}; several GPUs need {SHARED:.0f} GiB", fix)]


def limits(facts: Facts, config: Config) -> list[Line]:
    lines = [
        _limit("open files", facts.open_files, FEW_FILES, USUAL_FILES, FILES, "ulimit -n 65536 (docker run --ulimit nofile=65536)"),
        _limit("processes", None if facts.root else facts.processes, FEW_PROCESSES, USUAL_PROCESSES, PROCESSES, "ulimit -u unlimited"),
    ]
    if facts.address_space is not None:
        found = f"limited to {facts.address_space:.0f} GiB; GPUs and model files are mapped into far more than is used"
        lines.append(Line("address space", FAIL if facts.gpus else WARN, found, "ulimit -v unlimited"))
    if facts.infiniband and len(facts.gpus) > 1 and facts.locked_memory is not None and facts.locked_memory < LOCKED:
        fix = "ulimit -l unlimited (docker run --ulimit memlock=-1)"
        lines.append(Line("locked memory", WARN, f"{facts.locked_memory * 1024:.0f} MiB, too little for InfiniBand", fix))
    return lines


def _limit(name: str, found: int | None, few: int, usual: int, why: str, fix: str) -> Line:
    """Root has no limit of processes: the kernel does not apply it."""
    if found is None or found >= usual:
        return Line(name, PASS, "no limit" if found is None else f"up to {found}")
    return Line(name, FAIL if found < few else WARN, f"up to {found}, usual are {usual} or more: {why}", fix)


def memory(facts: Facts, config: Config) -> list[Line]:
    found = f"{facts.memory:.1f} GiB available"
    if facts.memory < LITTLE_MEMORY:
        return [
            Line(
                "memory",
                WARN,
                f"{found}; a rank of the tiny recipe takes 0.6, with vLLM 1.8",
                "end other programs, or take a larger machine",
            )
        ]
    return [Line("memory", PASS, found)]


def disks(facts: Facts, config: Config) -> list[Line]:
    checkpoint = checkpoint_gib(config)
    return [_disk(disk, config, checkpoint if disk.use == "runs" else None) for disk in facts.disks]


def _disk(disk: Disk, config: Config, checkpoint: float | None) -> Line:
    name, where, enough = f"disk: {disk.use}", f"{disk.free:.1f} GiB free at {disk.path}", SMALL_DISK + (checkpoint or 0)
    fix = {"runs": "run_dir=PATH on another disk", "cache": "FASTGRPO_CACHE=PATH", "Hub cache": "HF_HOME=PATH"}.get(disk.use, "TMPDIR=PATH")
    if not disk.writable:
        return Line(name, FAIL, f"{disk.path} cannot be written", fix)
    if disk.inodes is not None and disk.inodes < FEW_INODES:
        return Line(name, FAIL, f"{where}, but room for only {disk.inodes} more files", fix)
    if disk.free < enough:
        need = f"a checkpoint takes {checkpoint:.1f}" if checkpoint and checkpoint > SMALL_DISK else f"less than {SMALL_DISK:.0f}"
        return Line(name, FAIL, f"{where}; {need}", fix)
    kept = (checkpoint or 0) * (config.checkpoint.keep + 1 + (config.checkpoint.best != "none"))
    if disk.free < SMALL_DISK + kept:
        found = f"{where}; checkpoint.keep={config.checkpoint.keep} comes to {kept:.0f} while one is written"
        return Line(name, WARN, found, f"{fix}, or checkpoint.keep=1")
    return Line(name, PASS, where)


def checkpoint_gib(config: Config) -> float | None:
    """Of the weights and the optimizer's state; None for a model of unknown shape, and of adapters, which are small."""
    try:
        shape, _ = shape_of(config.model, {})
    except InputError:
        return None
    weight = {"bfloat16": 2, "float32": 4, "float64": 8}[config.dtype]
    trained = 0 if config.learner.lora_rank else MASTERS * weight // 4 if config.dtype == "float64" else MASTERS
    return shape.parameters * (weight + trained) / 2**30


def workers(facts: Facts, config: Config) -> list[Line]:
    if facts.worker_error:
        fix = "the limits above; in a container, a seccomp profile that allows fork and socketpair"
        return [Line("grading workers", FAIL, facts.worker_error, fix)]
    return [Line("grading workers", PASS, "forked, graded an answer, ended")]
