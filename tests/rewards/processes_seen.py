"""What /proc says of processes, for tests that none is left behind."""

import os
import time
from pathlib import Path


def stat(pid):
    """The state and the parent of a process, from /proc; of one that is gone, as of a zombie without parent."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "Z", 0
    return state, int(parent)


def children(parent=None):
    """The process ids of a process's children; of this one by default."""
    return {
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and stat(entry.name)[1] == (parent or os.getpid())
    }


def alive(pid):
    return stat(pid)[0] != "Z"


def gone(pids, seconds=5):
    """Whether all these processes end within that time."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(alive, pids))
