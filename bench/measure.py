"""Peak memory and synchronisation, on a GPU by the allocator's own count, on a CPU by sampling the resident set."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

PAGE = 4096


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def flush_caches() -> None:
    """Writes more than a GPU's L2 cache holds, so that no run finds its inputs there."""
    if torch.cuda.is_available():
        torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda").zero_()
        torch.cuda.synchronize()


def threshold(dtype: torch.dtype) -> float:
    """Above this relative error of a gradient, a contestant computes something else."""
    return 0.05 if dtype == torch.bfloat16 else 1e-4


def peak_extra_mib(run: Callable[[], None]) -> float:
    """MiB that a run holds at its peak beyond what was held before it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before, peaks, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peaks.append(resident())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return max(0, max(peaks) - before) / 2**20


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
