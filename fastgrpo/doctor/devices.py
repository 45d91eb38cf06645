"""The NVIDIA driver, what torch makes of it, the GPUs, and how they reach each other."""

from __future__ import annotations

from collections import Counter

from fastgrpo.config import Config
from fastgrpo.doctor.facts import Facts
from fastgrpo.doctor.lines import FAIL, PASS, WARN, Line

OLDEST_DRIVER = {12: "525.60", 13: "580.65"}  # for each major version of CUDA, which all of its minor versions can do with
BFLOAT16 = (8, 0)  # compute capability
BUSY = 0.9  # of a card's memory: less than this free means that another program is there
SWITCHES = ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE")


def cuda(facts: Facts, config: Config) -> list[Line]:
    if facts.torch_error:
        return []
    if facts.torch_cuda is None:
        if facts.driver is None:
            return [Line("CUDA", PASS, "torch is the build for CPUs")]
        fix = f'pip install --force-reinstall "torch{facts.supported.get("torch", "")}", from an index with the builds for CUDA'
        return [Line("CUDA", FAIL, "a GPU driver is here, and torch is the build for CPUs", fix)]
    if facts.driver is None:
        return [Line("CUDA", PASS, f"torch is built for CUDA {facts.torch_cuda}; without a driver it computes on the CPU")]
    if facts.cuda_error:
        return [
            Line("CUDA", FAIL, f"torch cannot use the GPU: {facts.cuda_error}", "nvidia-smi must list the GPU first; then see the driver")
        ]
    return [Line("CUDA", PASS, f"{facts.torch_cuda}, as torch is built for")]


def driver(facts: Facts, config: Config) -> list[Line]:
    if facts.driver is None:
        return [Line("driver", PASS, "no NVIDIA driver, so no GPU")]
    needed = int(facts.torch_cuda.split(".")[0]) if facts.torch_cuda else 0
    if facts.driver_cuda and facts.driver_cuda[0] < needed:
        fix = (
            f"a driver of {OLDEST_DRIVER.get(needed, f'CUDA {needed}')} or newer, or a torch that is built for CUDA {facts.driver_cuda[0]}"
        )
        has = f"runs CUDA up to {facts.driver_cuda[0]}.{facts.driver_cuda[1]}, and torch is built for {facts.torch_cuda}"
        return [Line("driver", FAIL, f"{facts.driver} {has}", fix)]
    upto = f", for CUDA up to {facts.driver_cuda[0]}.{facts.driver_cuda[1]}" if facts.driver_cuda else ""
    return [Line("driver", PASS, f"{facts.driver}{upto}")]


def gpus(facts: Facts, config: Config) -> list[Line]:
    if not facts.gpus:
        if facts.driver is not None and facts.environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            return [Line("GPUs", FAIL, "CUDA_VISIBLE_DEVICES hides them all", "unset CUDA_VISIBLE_DEVICES")]
        if config.model == "builtin:base":
            return [Line("GPUs", PASS, "none; the built-in model trains on the CPU")]
        return [
            Line(
                "GPUs", WARN, f"none; on a CPU {config.model} trains only if it is small", "a machine with a GPU; fastgrpo plan says which"
            )
        ]
    kinds = Counter((gpu.name, gpu.capability, round(gpu.total)) for gpu in facts.gpus)
    found = ", ".join(f"{count} x {name}, {size} GiB, compute capability {a}.{b}" for (name, (a, b), size), count in kinds.items())
    old = [number for number, gpu in enumerate(facts.gpus) if gpu.capability < BFLOAT16]
    if old:
        verdict = FAIL if config.dtype == "bfloat16" else WARN
        return [Line("GPUs", verdict, f"{found}; bfloat16 and flash attention need 8.0", "a GPU of compute capability 8.0 or more")]
    busy = [number for number, gpu in enumerate(facts.gpus) if gpu.free < BUSY * gpu.total]
    if busy:
        held = ", ".join(f"{facts.gpus[n].total - facts.gpus[n].free:.1f} GiB of GPU {n}" for n in busy)
        left = ",".join(str(n) for n in range(len(facts.gpus)) if n not in busy)
        fix = "end the programs that nvidia-smi lists" + (f", or leave these out: CUDA_VISIBLE_DEVICES={left}" if left else "")
        return [Line("GPUs", WARN, f"{found}; others hold {held}", fix)]
    if len(kinds) > 1:
        alike = kinds.most_common(1)[0][0]
        numbers = ",".join(str(n) for n, gpu in enumerate(facts.gpus) if (gpu.name, gpu.capability, round(gpu.total)) == alike)
        return [Line("GPUs", WARN, f"{found}: each step waits for the slowest", f"CUDA_VISIBLE_DEVICES={numbers}")]
    return [Line("GPUs", PASS, found)]


def nccl(facts: Facts, config: Config) -> list[Line]:
    if len(facts.gpus) < 2:
        return [Line("NCCL", PASS, f"{facts.nccl or 'not in this torch'}; one device does not need it")]
    if facts.nccl is None:
        fix = f'pip install --force-reinstall "torch{facts.supported.get("torch", "")}": the usual Linux builds hold it'
        return [Line("NCCL", FAIL, f"not in this torch, and {len(facts.gpus)} GPUs need it", fix)]
    set_off = [name for name in SWITCHES if facts.environment.get(name, "0") not in ("", "0")]
    if set_off:
        found = f"{facts.nccl}, with {', '.join(f'{name}={facts.environment[name]}' for name in set_off)}: slower ways between GPUs"
        return [Line("NCCL", WARN, found, f"unset {' '.join(set_off)}")]
    return [Line("NCCL", PASS, facts.nccl)]


def peer_access(facts: Facts, config: Config) -> list[Line]:
    if len(facts.gpus) < 2:
        return [Line("peer access", PASS, "not needed by one device")]
    if facts.no_peer_access:
        pairs = ", ".join(f"{a}-{b}" for a, b in facts.no_peer_access)
        fix = "nvidia-smi topo -m shows the links; on virtual machines pass GPUs through with their switch, on bare metal turn off ACS"
        return [Line("peer access", WARN, f"none between GPUs {pairs}: NCCL copies through shared memory, slower", fix)]
    return [Line("peer access", PASS, f"between all {len(facts.gpus)} GPUs")]
