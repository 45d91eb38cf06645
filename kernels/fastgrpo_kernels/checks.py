"""What the public functions accept, checked once at the door; everything behind it trusts its input."""

import math
from numbers import Real

import torch
from torch import Tensor

HEAD_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Not the 16-bit ones: a log-prob of -10 rounded to bf16 is off by up to 0.03 nats, 3 % in the ratio.
TOKEN_DTYPES = (torch.float32, torch.float64)


def require_head(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, vocab_size: int | None) -> None:
    """hidden (T, H), weight (V, H) and bias (V,) or None of one dtype and device, targets (T,) int64 on it, vocab_size in 1..V or None."""
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
    if bias is not None:
        if not isinstance(bias, Tensor) or bias.shape != (weight.shape[0],):
            raise ValueError(f"bias must have shape ({weight.shape[0]},), one entry per row of weight, got {_shape(bias)}")
        if bias.dtype != weight.dtype or bias.device != weight.device:
            raise ValueError(f"bias must be {weight.dtype} on {weight.device} like weight, got {bias.dtype} on {bias.device}")
    require_per_token("targets", targets, hidden.shape[0], hidden.device, (torch.int64,))
    require_vocab_size(vocab_size, weight.shape[0])


def require_logits(logits: Tensor, targets: Tensor, vocab_size: int | None) -> None:
    """logits (T, V) of a float dtype, targets (T,) int64 on the same device, vocab_size in 1..V or None."""
    if logits.dim() != 2 or logits.shape[1] == 0:
        raise ValueError(f"logits must have shape (tokens, vocabulary), got {tuple(logits.shape)}; pack sequences into one dimension first")
    if logits.dtype not in HEAD_DTYPES:
        raise ValueError(f"logits must be one of {HEAD_DTYPES}, got {logits.dtype}")
    require_per_token("targets", targets, logits.shape[0], logits.device, (torch.int64,))
    require_vocab_size(vocab_size, logits.shape[1])


def require_vocab_size(vocab_size: int | None, columns: int) -> None:
    if vocab_size is not None and (not isinstance(vocab_size, int) or not 1 <= vocab_size <= columns):
        raise ValueError(f"vocab_size must be an integer in 1..{columns}, the columns there are, got {vocab_size!r}")


def require_scaling(temperature: float | Tensor, logit_scale: float, softcap: float | None, tokens: int, device: torch.device) -> None:
    """temperature a number or (T,), everything finite and > 0. A tensor's values are not read here: that would make a GPU wait."""
    if isinstance(temperature, Tensor) and temperature.dim():
        require_per_token("temperature", temperature, tokens, device, TOKEN_DTYPES)
    else:
        require_positive("temperature", temperature)
    require_positive("logit_scale", logit_scale)
    if softcap is not None:
        require_positive("softcap", softcap)


def require_positive_temperatures(temperatures: float | Tensor) -> None:
    """Only on the CPU, as with targets. Pass those that are used; a number was checked before."""
    if not isinstance(temperatures, Tensor) or temperatures.device.type != "cpu" or temperatures.numel() == 0:
        return
    low, high = (bound.item() for bound in torch.aminmax(temperatures))  # NaN if there is one
    if not (low > 0 and high < math.inf):
        raise ValueError(f"temperature must be finite and > 0 for every token, got {low}..{high}")


def require_rows(rows: Tensor | None, loss_mask: Tensor | None, tokens: int, device: torch.device) -> None:
    """At most one of rows (M,) int64, on the host or on device, and loss_mask (T,) bool."""
    if rows is None:
        if loss_mask is not None:
            require_per_token("loss_mask", loss_mask, tokens, device, (torch.bool,))
        return
    if loss_mask is not None:
        raise ValueError("rows and loss_mask say the same thing, give one of them, got both")
    if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.dtype != torch.int64:
        raise ValueError(f"rows must have shape (kept rows,) and dtype torch.int64, got {_shape(rows)} {getattr(rows, 'dtype', '')}")
    if rows.device != device and rows.device.type != "cpu":
        raise ValueError(f"rows must be on the host or on {device}, got {rows.device}")


def require_increasing_rows(rows: Tensor, tokens: int) -> None:
    """Only on the CPU, as with targets: 0 <= rows[0] < rows[1] < ... < tokens. A row given twice would lose one of its gradients."""
    if rows.device.type != "cpu" or rows.numel() == 0:
        return
    if rows[0] < 0 or rows[-1] >= tokens or not bool((rows.diff() > 0).all()):
        raise ValueError(f"rows must increase within 0..{tokens - 1}, got {rows[:8].tolist()}{' ...' if len(rows) > 8 else ''}")


def require_targets_in_vocabulary(targets: Tensor, vocabulary: int) -> None:
    """Only on the CPU: reading the range back would make a GPU wait. Pass the targets that are used, the others may be -100."""
    if targets.device.type != "cpu" or targets.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(targets))
    if low < 0 or high >= vocabulary:
        raise ValueError(f"targets must lie in 0..{vocabulary - 1}, got {low}..{high}; exclude prompt and padding rows with loss_mask")


def require_cu_seqlens(cu_seqlens: Tensor, tokens: int, device: torch.device) -> None:
    """(S + 1,) int32 or int64, from 0 to tokens without a step back; the values are read only on the CPU, as with targets."""
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dim() != 1 or len(cu_seqlens) == 0:
        raise ValueError(f"cu_seqlens must have shape (sequences + 1,), got {_shape(cu_seqlens)}")
    if cu_seqlens.dtype not in (torch.int32, torch.int64) or cu_seqlens.device != device:
        raise ValueError(f"cu_seqlens must be int32 or int64 on {device}, got {cu_seqlens.dtype} on {cu_seqlens.device}")
    if device.type == "cpu" and (cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens or bool((cu_seqlens.diff() < 0).any())):
        raise ValueError(f"cu_seqlens must rise from 0 to {tokens}, the number of tokens, got {cu_seqlens[:8].tolist()}")


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


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
