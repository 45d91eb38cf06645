"""The ranks of a run: who this process is, and how they tell each other what all must know. One process alone is rank 0 of 1.

Objects travel over a group of their own, on the CPU: it may wait long for a rank whose responses or rewards take their time, while
gradients keep the short patience of the accelerator's own group.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from fastgrpo.errors import FastgrpoError, InputError, SetupError

Item = TypeVar("Item")
PATIENCE = timedelta(hours=2)  # for the slowest rank of a phase
LOST = "lost touch with the other ranks: one of them ended, or the network did"
PHASE_FILE = "FASTGRPO_PHASE_FILE"  # names the file where a rank leaves word of its phase, for the launcher to tell
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Ranks:
    """`group` is the torch.distributed group for objects, None for one process alone."""

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's part: every size-th item."""
        return items[self.rank :: self.size]

    def gather(self, mine: object) -> list:
        """What each rank gave, in the order of ranks. Every rank calls it."""
        if self.size == 1:
            return [mine]
        import torch.distributed as dist

        given: list = [None] * self.size
        with lost_ranks_named():
            dist.all_gather_object(given, mine, group=self.group)
        return given

    def join(self, mine: Sequence[Item]) -> list[Item]:
        """Undoes `share`: all items in their order, from what each rank made of its own."""
        shares = self.gather(list(mine))
        return [shares[k % self.size][k // self.size] for k in range(sum(map(len, shares)))]

    def same_weights(self, model) -> None:
        """Gives every rank rank 0's weights: models made on different machines differ in rounding.

        Only a tensor that differs is written. What was read from one file lies in host memory once for all ranks, until it is written.
        """
        if self.size > 1:
            import torch
            import torch.distributed as dist

            for tensor in model.state_dict().values():
                wanted = tensor.clone()
                dist.broadcast(wanted, 0)
                if not torch.equal(wanted, tensor):
                    tensor.copy_(wanted)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Rank 0 goes through the block, then the others do: for what the first makes and the others find made."""
        if not self.first:
            self.gather(None)
        yield
        if self.first:
            self.gather(None)


class LostRank(FastgrpoError):
    """Another rank ended, or cannot be reached: the cause is there, not here."""


@contextmanager
def lost_ranks_named() -> Iterator[None]:
    """Around a collective operation, whose own errors do not say in words what happened."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise LostRank(f"rank {os.environ.get('RANK', '0')} {LOST} ({reason})") from error


def launched_ranks() -> int:
    """How many ranks a launcher has started, this one included; 1 without a launcher. Raises SetupError for half a launch."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    missing = [name for name in LAUNCHED if name not in os.environ]
    if size > 1 and missing:
        raise SetupError(f"WORLD_SIZE is above 1, but not set are {', '.join(missing)}: start with torchrun, or with --gpus N")
    return size


def require_no_launcher() -> None:
    """Raises InputError in a process that a launcher started: it would start as many again."""
    if launched_ranks() > 1:
        raise InputError(f"--gpus and --nodes start ranks, and a launcher has started {launched_ranks()} already: use one of the two")


def join_ranks() -> Ranks:
    """Meets the other ranks that torchrun or `--gpus` started, and takes this one's GPU. Raises SetupError where that fails."""
    if launched_ranks() == 1:
        return Ranks()
    import torch
    import torch.distributed as dist

    require_gpus(int(os.environ["LOCAL_RANK"]) + 1)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=PATIENCE))
    except (RuntimeError, ValueError) as error:
        raise SetupError(f"the ranks could not meet at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {error}") from error


def require_gpus(ranks: int) -> None:
    """Raises SetupError where this machine has GPUs, but not one for each of so many ranks."""
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else ranks
    if found < ranks:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise SetupError(f"{ranks} ranks on this machine need a GPU each, and {found} can be seen (CUDA_VISIBLE_DEVICES {visible})")


def leave(code: int | str | None) -> NoReturn:
    """Ends this process. At once where it is one of several ranks: gloo's threads abort, now and then, one that takes its objects down
    around them, and its exit code would be lost."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else bool(code))
    sys.exit(code)
