"""Programs of several ranks, as torchrun starts them, but forked from one process: loading torch takes longer than most of what they do.

python forked_ranks.py RANKS PROGRAM [ARGUMENT ...]
"""

import ctypes
import os
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path

TESTS = Path(__file__).parent
PR_SET_PDEATHSIG = 1


def run_ranks(count: int, program: Path, *arguments: object, seconds: float = 280) -> subprocess.CompletedProcess:
    """Runs the program as so many ranks, or by itself where it is one; what it imports may lie beside it, or in this directory."""
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS.parent / "kernels", TESTS, program.parent)))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, __file__, str(count), str(program), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)


def main(count: str, program: str, *arguments: str) -> int:
    """The exit code: 1 where a rank failed, and the others were killed."""
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401  # before the fork; it starts no thread and holds no socket

    from fastgrpo.wire import free_port

    if count != "1":
        os.environ |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = {forked(rank, count, program, *arguments) for rank in range(int(count))}
    failed = False
    while ranks:
        process, status = os.wait()
        ranks.discard(process)
        if status and not failed:
            failed = True
            for other in ranks:
                os.kill(other, signal.SIGKILL)
    return int(failed)


def forked(rank: int, count: str, program: str, *arguments: str) -> int:
    """The process id of a new rank; the rank itself never returns."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if count != "1":
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
