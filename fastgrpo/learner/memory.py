"""Passes that do not fit into memory: the pack is split by sequences and tried again, which changes no result.

Divisors are complete before a pack is made, so the gradients of its parts add up to its own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastgrpo.errors import SetupError
from fastgrpo.faults import require_memory
from fastgrpo.model import model_logprobs
from fastgrpo.packing import split
from fastgrpo.types import PackedBatch

Result = TypeVar("Result")


def in_parts_that_fit(batch: PackedBatch, run: Callable[[PackedBatch], Result], failed: list[int]) -> list[Result]:
    """What `run` gives for the pack, or for each of the parts, in order, that it has to be split into.

    A failed `run` must leave nothing behind. The tokens of packs that did not fit are added to `failed`. Raises SetupError where a
    single sequence does not fit.
    """
    try:
        return [run(batch)]
    except torch.OutOfMemoryError as error:
        if len(batch.cu_seqlens) == 2:
            raise _does_not_fit(batch, error) from error
    failed.append(batch.tokens)  # out here, where the exception no longer holds the frames of the pass, and they its tensors
    gc.collect()
    torch.cuda.empty_cache()
    return [result for part in split(batch) for result in in_parts_that_fit(part, run, failed)]


def logprobs_in_parts(model: nn.Module, batch: PackedBatch, temperature: float, failed: list[int]) -> Tensor:
    """model_logprobs of the pack, all at once or in parts that fit."""

    def run(part: PackedBatch) -> Tensor:
        logprobs = model_logprobs(model, part, temperature)
        require_memory(part.tokens)
        return logprobs

    return torch.cat(in_parts_that_fit(batch, run, failed))


@contextmanager
def whole_or_not_at_all(batch: PackedBatch) -> Iterator[None]:
    """Around a pass that cannot be taken back, because other ranks take part in it. Raises SetupError where it does not fit."""
    try:
        yield
        require_memory(batch.tokens)
    except torch.OutOfMemoryError as error:
        if len(batch.cu_seqlens) == 2:
            raise _does_not_fit(batch, error) from error
        raise SetupError(
            f"a pack of {batch.tokens} tokens does not fit into memory, and DeepSpeed cannot take half a pass back: "
            f"lower tokens_per_pack to {batch.tokens // 2}, and go on with --resume auto ({_said(error)})"
        ) from error


def _does_not_fit(batch: PackedBatch, error: Exception) -> SetupError:
    return SetupError(
        f"a single sequence of {batch.tokens} tokens does not fit into memory: set learner.recompute=true, lower max_new_tokens, "
        f"spread a large model with learner.engine=deepspeed, or take a smaller one ({_said(error)})"
    )


def _said(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
