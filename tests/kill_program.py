"""A small program saves three checkpoints and is killed at a boundary between two writes; then another goes on from what is left.

kill_program.py DIRECTORY OUTPUT.json: does so for the first boundary, the second and so on, until none is left to be killed at.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from test_checkpoint import checkpoints, files

from fastgrpo import saved_state
from fastgrpo.manifest import flaw
from fastgrpo.progress import Progress
from fastgrpo.resume import newest_valid

SAVES = (Progress(step=2, best=(2, 0.1)), Progress(step=4, best=(4, 0.2)), Progress(step=6, best=(4, 0.2)))


def save_all(directory: Path, boundary: int) -> int:
    """In a process of its own, killed at that boundary; the code it ended with."""
    child = os.fork()
    if child == 0:
        os.environ["FASTGRPO_FAULTS"] = f"write@{boundary}:0:kill"
        saved = checkpoints(directory, keep=1)
        for progress in SAVES:
            saved.save(progress)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def go_on(directory: Path) -> dict:
    """What is found after a kill, and what is there after a repair and another save."""
    found = newest_valid(directory, lambda text: None)
    step = 0 if found is None else int(found.name.removeprefix("step_"))
    progress = next((progress for progress in SAVES if progress.step == step), Progress())
    before = {path.name: flaw(path) for path in directory.glob("step_*") if path.suffix != ".tmp"}
    saved = checkpoints(directory, keep=1)
    saved.repair(progress)
    repaired = files(directory)
    saved.save(Progress(step=8, best=progress.best))
    pointers = {name: os.readlink(directory / name) for name in ("latest", "best") if (directory / name).is_symlink()}
    return {"newest": step, "before": before, "repaired": repaired, "after": files(directory), "pointers": pointers}


def main(directory: Path, output: Path) -> None:
    torch.set_num_threads(1)
    saved_state.SHARD_BYTES = 30  # several files
    results, code, boundary = [], None, 0
    while code != 0:
        boundary += 1
        place = directory / str(boundary)
        place.mkdir()
        code = save_all(place, boundary)
        assert code in (0, -signal.SIGKILL), code
        results.append(go_on(place))
    output.write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
