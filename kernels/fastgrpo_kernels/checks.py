"""What the public functions accept, checked once at the door; everything behind it trusts its input."""

import math
from numbers import Real

import torch
from torch import Tensor

HEAD_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Not the 16-bit ones: a log-prob of -10 rounded to bf16 is off by up to 0.03 nats, 3 % in the ratio.
TOKEN_DTYPES = (torch.float32, torch.float64)


def require_head(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    """hidden (T, H) and weight (V, H) of one dtype and device, targets (T,) int64 on it."""
    if hidden.dim() != 2:
        raise ValueError(f"hidden must have shape (tokens, width), got {tuple(hidden.shape)}; pack sequences into one dimension first")
    if hidden.dtype not in HEAD_DTYPES:
        raise ValueError(f"hidden must be one of {HEAD_DTYPES}, got {hidden.dtype}")
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[1] or weight.shape[0] == 0:
        raise ValueError(f"weight must have shape (vocabulary, {hidden.shape[1]}), hidden's width, got {tuple(weight.shape)}")
    if weight.dtype != hidden.dtype:
        raise ValueError(f"weight must have hidden's dtype {hidden.dtype}, got {weight.dtype}; cast one of the two")
    if weight.device != hidden.device:
        raise ValueError(f"weight must be on hidden's device {hidden.device}, got {weight.device}")
    require_per_token("targets", targets, hidden.shape[0], hidden.device, (torch.int64,))


def require_targets_in_vocabulary(targets: Tensor, vocabulary: int) -> None:
    """Only on the CPU: reading the range back would make a GPU wait. Pass the targets that are used, the others may be -100."""
    if targets.device.type != "cpu" or targets.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(targets))
    if low < 0 or high >= vocabulary:
        raise ValueError(f"targets must lie in 0..{vocabulary - 1}, got {low}..{high}; exclude prompt and padding rows with loss_mask")


def require_per_token(name: str, value: Tensor, tokens: int, device: torch.device, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor of shape ({tokens},), got {type(value).__name__}")
    if value.shape != (tokens,):
        raise ValueError(f"{name} must have shape ({tokens},), one entry per token, got {tuple(value.shape)}")
    if value.dtype not in dtypes:
        raise ValueError(f"{name} must be {' or '.join(map(str, dtypes))}, got {value.dtype}")
    if value.device != device:
        raise ValueError(f"{name} must be on {device}, got {value.device}")


def require_positive(name: str, value: float) -> None:
    if not isinstance(value, Real) or not 0 < value < math.inf:  # the comparison is False for NaN too
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")


def require_between(name: str, value: float, low: float, high: float) -> None:
    """low <= value <= high; infinity only where high is infinite."""
    if not isinstance(value, Real) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in [{low}, {high}], got {value!r}")


def require_finite(name: str, value: float, at_least: float = -math.inf) -> None:
    if not isinstance(value, Real) or not math.isfinite(value) or value < at_least:
        raise ValueError(f"{name} must be a finite number{f' >= {at_least}' if at_least > -math.inf else ''}, got {value!r}")
