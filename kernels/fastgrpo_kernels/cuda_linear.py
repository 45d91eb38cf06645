"""The head on a GPU: library matrix products around one Triton row kernel, over two levels of rows. Needs triton; imported only for CUDA.

    Z        = X_tile W^T              fp32 (TILE_ROWS, V), from 16-bit inputs on tensor cores
    G        = row kernel of Z         weight's dtype, written into a panel of PANEL_ROWS: fp32 memory stays small, nothing aliases
    dX_panel = unit (G W)              fp32
    dW      += G^T X_panel             fp32, once per panel, so that all of dW is read and written only M / PANEL_ROWS times

The constant part `unit` of the loss's scale stays out of the panel and is applied in fp32 at the end: with it inside, a whole sequence
would share one rounding error, and float16 would underflow. Every tile is multiplied with all its TILE_ROWS rows, used or not: one shape
of product, so that a row's logits come out the same whichever rows share its tile.

Extra bytes at 16 bit: 4 V TILE_ROWS + 2 V PANEL_ROWS + 4 V H (dW) + 4 T H (dX): 2.9 GiB at H = 2048, V = 151,936, T = 32,768.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgrpo_kernels.linear_policy_op import Gradients
from fastgrpo_kernels.objective import ObjectiveSettings, Tokens
from fastgrpo_kernels.row import Scaling
from fastgrpo_kernels.triton_launch import Logits, RowResults, row_forward, row_gradient

TILE_ROWS = 512
PANEL_ROWS = 4096  # a multiple of TILE_ROWS
_GIVEN = ObjectiveSettings("given", 0.0, 0.0, None, 0.0, None, 1.0, 1.0)
_LEADING = 16  # elements: rows of Z and G start at 16-byte boundaries, and the kernel is compiled once for every vocabulary


@dataclass(frozen=True)
class Signal:
    """What the gradients need besides the log-probs, over the M rows; see `row_gradient`."""

    tokens: Tokens
    settings: ObjectiveSettings
    entropy_coef: float
    grad_entropy: Tensor | None  # divided by unit
    unit: Tensor  # () float32: the largest of the row's factors, so that the panel holds numbers around 1


def policy_loop(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    rows: Tensor,
    kept: Tokens,
    settings: ObjectiveSettings,
    scaling: Scaling,
    entropy_coef: float,
    gradients: Gradients,
) -> tuple[Tensor, Tensor]:
    """`linear_policy_op.tile_loop` on a GPU, with weight and bias in their own dtype: adds into gradients, zero at first and float32."""
    kept = kept.take(slice(None), torch.float32)
    size = kept.scale if kept.grad_logprobs is None else kept.scale * kept.grad_logprobs
    signal = Signal(kept, settings, entropy_coef, None, _unit(size)) if gradients.any() else None
    results = run_head(hidden, weight, targets, rows, Logits(scaling, bias), signal, gradients)
    return results.logprobs, results.entropy


def logprobs_loop(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies (T,) float32 of all rows."""
    results = run_head(hidden, weight, targets, _all_rows(hidden), Logits(scaling, bias), None, Gradients(None, None, None))
    return results.logprobs, results.entropy


def logprobs_backward_loop(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    g: Tensor,
    h: Tensor | None,
    scaling: Scaling,
    gradients: Gradients,
) -> None:
    """Adds into gradients what follows from g = dLoss/dlogprobs and h = dLoss/dentropy, both (T,) float32."""
    unit = _unit(g if h is None else torch.maximum(g.abs(), h.abs()))
    signal = Signal(Tokens(None, torch.ones_like(g), None, None, None, g), _GIVEN, 0.0, None if h is None else h / unit, unit)
    run_head(hidden, weight, targets, _all_rows(hidden), Logits(scaling, bias), signal, gradients)


def run_head(
    hidden: Tensor, weight: Tensor, targets: Tensor, rows: Tensor, head: Logits, signal: Signal | None, gradients: Gradients
) -> RowResults:
    """The results over the M rows; signal None: log-probs and entropy only.

    hidden (T, H) and weight (V, H) float32 or 16 bit; rows (M,) int64 without repeats, the rows of hidden that count; targets,
    a temperature per row and all of signal (M,); the gradients may have more than V rows. Call it under no_grad and with autocast off.
    """
    count, (vocabulary, width) = len(rows), weight.shape
    results = RowResults.empty(count, hidden.device)
    panel_rows = min(PANEL_ROWS, _round_up(count, TILE_ROWS))
    leading = _round_up(vocabulary, _LEADING)
    x = hidden.new_zeros(panel_rows, width)
    logits = torch.empty(TILE_ROWS, leading, device=hidden.device)[:, :vocabulary]
    panel = weight.new_empty(panel_rows, leading)[:, :vocabulary] if signal else None
    x_gradient = torch.empty(panel_rows, width, device=hidden.device) if gradients.hidden is not None else None
    with exact_products():
        for start in range(0, count, max(1, panel_rows)):
            at = rows[start : start + panel_rows]
            used = len(at)
            torch.index_select(hidden, 0, at, out=x[:used])
            for top in range(0, used, TILE_ROWS):
                product(x[top : top + TILE_ROWS], weight.t(), logits)
                tile = slice(top, min(top + TILE_ROWS, used))
                here = slice(start + tile.start, start + tile.stop)
                _row_pass(logits[: tile.stop - top], targets, here, head, signal, None if panel is None else panel[tile], results)
            if signal is not None:
                _add_panel(panel[:used], x[:used], weight, at, signal.unit, x_gradient, gradients)
    for gradient in (gradients.weight, gradients.bias):
        if gradient is not None:
            gradient.mul_(signal.unit)
    return results


def _row_pass(
    logits: Tensor, targets: Tensor, here: slice, head: Logits, signal: Signal | None, panel: Tensor | None, results: RowResults
) -> None:
    targets, head, results = targets[here], head.take(here), results.part(here)
    if signal is None:
        return row_forward(logits, targets, head, results)
    grad_entropy = None if signal.grad_entropy is None else signal.grad_entropy[here]
    row_gradient(
        logits, targets, head, signal.tokens.take(here, torch.float32), signal.settings, panel, results,
        scale_unit=signal.unit, entropy_coef=signal.entropy_coef, grad_entropy=grad_entropy,
    )  # fmt: skip


def _add_panel(panel: Tensor, x: Tensor, weight: Tensor, at: Tensor, unit: Tensor, scratch: Tensor | None, gradients: Gradients) -> None:
    vocabulary = len(weight)
    if gradients.hidden is not None:
        product(panel, weight, scratch[: len(panel)])
        gradients.hidden.index_copy_(0, at, scratch[: len(panel)].mul_(unit))
    if gradients.weight is not None:
        add_product(gradients.weight[:vocabulary], panel.t(), x)
    if gradients.bias is not None:
        gradients.bias[:vocabulary].add_(panel.sum(0, dtype=torch.float32))


def product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """out = left right, in out's float32."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    elif left.is_cuda:
        torch.mm(left, right, out_dtype=out.dtype, out=out)
    else:  # the CPU has no such product; the interpreter's tests come here
        torch.mm(left.to(out.dtype), right.to(out.dtype), out=out)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left right, in total's float32."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """float32 products in float32, 16-bit ones summed in float32, whatever the process has set for its own."""
    matmul = torch.backends.cuda.matmul
    wanted = {"fp32_precision": "ieee", "allow_fp16_accumulation": False}
    for kind in ("bf16", "fp16"):
        name = f"allow_{kind}_reduced_precision_reduction"
        wanted[name] = (False, getattr(matmul, f"{name}_split_k", True))
    before = {name: getattr(matmul, name) for name in wanted}
    for name, value in wanted.items():
        setattr(matmul, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, (value, wanted[name][1]) if isinstance(wanted[name], tuple) else value)


def _unit(size: Tensor) -> Tensor:
    """() float32: the largest absolute value, 1 where all are 0."""
    largest = size.abs().amax() if len(size) else size.new_zeros(())
    return torch.where(largest > 0, largest, 1.0)


def _all_rows(hidden: Tensor) -> Tensor:
    return torch.arange(len(hidden), device=hidden.device)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
