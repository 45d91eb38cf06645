"""Equal numbers of passes on all ranks: engines that spread gradients or weights wait in every pass for every rank.

A rank with fewer packs runs others of weight zero in their place, and one pass runs even where no rank has any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from fastgrpo.packing import pack_one
from fastgrpo.types import PackedBatch, TrainingSequence


def with_blanks(packs: Sequence[PackedBatch], device: torch.device) -> list[PackedBatch]:
    """The packs of this rank, then as many blank ones as it has fewer than the rank with most. Every rank calls it."""
    most = torch.tensor(max(len(packs), 1), device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return [*packs, *[blank()] * (int(most) - len(packs))]


def blank() -> PackedBatch:
    """Two tokens whose loss has weight 0: a gradient of zeros in every parameter."""
    return pack_one([TrainingSequence((0,), (0, 0), (0.0, 0.0), advantage=0.0, scale=0.0)])
