"""Waking a part of the engine where memory is short: what can be is given back, it is tried once more, then told what to lower."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from fastgrpo.errors import SetupError
from fastgrpo.rollout.process_state import memory_mib

PARTS = {"weights": "weights", "kv_cache": "KV cache"}


def wake_with_room(wake: Callable[[str], None], part: str, mib: float) -> None:
    """`wake("weights")` or `wake("kv_cache")`, a part of `mib` MiB. Raises SetupError where it does not fit, even after a second try.

    vLLM maps a part piece by piece, and a second call goes on where the first stopped: nothing has to sleep again in between.
    """
    if _shortage(wake, part) is None:
        return
    gc.collect()  # out here, where no exception holds frames any more, and they tensors
    torch.cuda.empty_cache()
    error = _shortage(wake, part)
    if error is None:
        return
    held = ", ".join(f"{name.replace('_', ' ')} {size:,.0f} MiB" for name, size in memory_mib().items())
    raise SetupError(
        f"the rollout engine cannot wake up: its {PARTS[part]} of {mib:,.0f} MiB finds no room beside what the learner and other programs "
        f"hold ({held}). Lower rollout.cache_gib or tokens_per_pack, or spread what the learner holds with learner.engine=deepspeed, "
        "and go on with --resume auto"
    ) from error


def _shortage(wake: Callable[[str], None], part: str) -> RuntimeError | None:
    """None once the part is awake, or the error that says that memory is short; others are raised."""
    try:
        wake(part)
    except RuntimeError as error:  # vLLM's allocator knows no class of its own for it
        if not (isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()):
            raise
        return error.with_traceback(None)
    return None
