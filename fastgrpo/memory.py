"""What this process holds in memory, in one line: for whoever reads why it failed."""

from __future__ import annotations

import sys
from pathlib import Path


def memory_line() -> str:
    """Resident memory now and at its peak, and of the current GPU, if one is in use; in GiB. Never raises: a GPU may be the failure."""
    line = "memory unknown"
    status = Path("/proc/self/status")
    if status.exists():
        kib = dict(row.split(":", 1) for row in status.read_text().splitlines())
        now, peak = (int(kib[name].split()[0]) / 2**20 for name in ("VmRSS", "VmHWM"))
        line = f"memory {now:.2f} GiB, {peak:.2f} GiB at its peak"
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return line
    try:
        free, total = torch.cuda.mem_get_info()
        sizes = (torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), free, total)
    except RuntimeError as error:
        return f"{line}; GPU memory cannot be read: {str(error).splitlines()[0]}"
    return "{}; GPU: {:.2f} GiB allocated, {:.2f} reserved, {:.2f} free of {:.2f}".format(line, *(size / 2**30 for size in sizes))
