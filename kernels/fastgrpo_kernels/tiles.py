"""The products of the output head, a tile of rows at a time: one buffer of logits, overwritten by every tile.

A row's logits come out bit for bit the same whichever rows share its tile, which is what makes the importance ratio exactly 1 before the
first step even when the old log-probs were computed over other packs. Matrix products do not give that for free; see `_ROW_MULTIPLE`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastgrpo_kernels.row import compute_dtype

# Logits of a tile, in bytes. Larger tiles touch the weight-gradient accumulator less often; 24, 48 and 64 MiB
# were within 5 % of each other (T 4096, H 512, V 32000, two Zen 5 cores).
_TILE_BYTES = 48 << 20
_MIN_TILE_ROWS = 256  # a wide vocabulary keeps this many: every tile reads and writes all of dW (V, H)
# CPU BLAS handles rows left over after its row block with other kernels that round differently: the last tile is multiplied with rows
# to spare, whose logits nobody reads, up to a multiple of the block (4 in MKL, the rest is margin).
_ROW_MULTIPLE = 16


def tile_rows(vocabulary: int, dtype: torch.dtype) -> int:
    rows = max(_MIN_TILE_ROWS, _TILE_BYTES // (vocabulary * dtype.itemsize))
    return _round_up(rows)


def head_weight(weight: Tensor) -> Tensor:
    """The weight or bias in the dtype of the products: itself for float32 and float64, a float32 copy if 16-bit (logits never are)."""
    return weight.detach().to(compute_dtype(weight.dtype))


def logit_tiles(hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yields (where, x, logits) for each tile of the given rows of hidden; x and logits are valid until the next tile.

    hidden (T, H); weight (V, H) and bias (V,) or None from `head_weight`; rows (M,) int64.
    where: a slice of 0..M; x (c, H), logits (c, V) in weight's dtype.
    Call it under no_grad and with autocast off.
    """
    step = min(tile_rows(len(weight), weight.dtype), _round_up(max(1, len(rows))))
    x_buffer = weight.new_empty(step, weight.shape[1])
    logits_buffer = weight.new_empty(step, weight.shape[0])
    for start in range(0, len(rows), step):
        tile = rows[start : start + step]
        count = len(tile)
        x = x_buffer[: _round_up(count)]
        x[:count] = hidden[tile]
        logits = torch.mm(x, weight.t(), out=logits_buffer[: len(x)])
        if bias is not None:
            logits.add_(bias)  # not addmm: its result would be one rounding away, in some libraries only in some rows
        yield slice(start, start + count), x[:count], logits[:count]


def _round_up(rows: int) -> int:
    return -(-rows // _ROW_MULTIPLE) * _ROW_MULTIPLE
