"""The three ways to run the row kernel, on tensors. Importing this module imports triton; `import fastgrpo_kernels` alone does not.

BLOCK_V and num_warps come from a fixed table: nothing is tuned at run time, so every rank and every batch runs the same code, and the row
count, the vocabulary's width, the temperature and the numbers of the objective never compile anything anew.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastgrpo_kernels.objective import KINDS, ObjectiveSettings, Tokens
from fastgrpo_kernels.row import Scaling
from fastgrpo_kernels.triton_row import FORWARD, GRADIENT, SHARD, row_kernel

CLIPPED_LOW, CLIPPED_HIGH = 1, 2  # bits of RowResults.flags


@dataclass(frozen=True)
class Logits:
    """What turns logits into z, see `triton_row`: the scaling, bias (V,) float or None, and vocabulary: columns from there on are padding,
    None: none are.
    """

    scaling: Scaling
    bias: Tensor | None = None
    vocabulary: int | None = None

    def take(self, rows: slice) -> "Logits":
        return replace(self, scaling=self.scaling.take(rows))


@dataclass(frozen=True)
class RowResults:
    """(c,) each, float32 and flags int32: written by the kernel. loss is l, before the row's scale and without the entropy term."""

    logprobs: Tensor
    entropy: Tensor
    lse: Tensor
    loss: Tensor
    flags: Tensor

    @staticmethod
    def empty(rows: int, device: torch.device) -> "RowResults":
        return RowResults(*(torch.empty(rows, device=device) for _ in range(4)), torch.empty(rows, dtype=torch.int32, device=device))

    def part(self, rows: slice) -> "RowResults":
        return RowResults(*(column[rows] for column in vars(self).values()))


def row_forward(logits: Tensor, targets: Tensor, head: Logits, results: RowResults, shards: Tensor | None = None) -> None:
    """Pass 1 alone: fills logprobs, entropy and lse. logits (c, V) float32 or 16 bit with unit column stride, targets (c,) int64."""
    _launch(FORWARD.value, logits, targets, head, results=results, shards=shards)


def row_shard(logits: Tensor, targets: Tensor, head: Logits) -> Tensor:
    """(m, s, u, z_target) (4, c) float32 over the columns that this rank holds; targets count from its first column, and z_target is -inf
    where they lie outside. `combine_shards` joins the ranks' results.
    """
    shards = torch.empty(4, len(logits), device=logits.device)
    _launch(SHARD.value, logits, targets, head, shards=shards)
    return shards


def combine_shards(shards: Tensor) -> Tensor:
    """(ranks, 4, c), as gathered, to (4, c): the same four numbers over the whole vocabulary."""
    m, s, u, z_target = shards.unbind(1)
    top = m.amax(0)
    drop = torch.where(m == -torch.inf, 0.0, m - top)
    decay = drop.exp().masked_fill(m == -torch.inf, 0.0)
    return torch.stack([top, (decay * s).sum(0), (decay * (u + drop * s)).sum(0), z_target.amax(0)])


def row_gradient(
    logits: Tensor,
    targets: Tensor,
    head: Logits,
    tokens: Tokens,
    settings: ObjectiveSettings,
    panel: Tensor,
    results: RowResults,
    *,
    scale_unit: Tensor,
    entropy_coef: float = 0.0,
    grad_entropy: Tensor | None = None,
    shards: Tensor | None = None,
) -> None:
    """Fills panel (c, V), float32 or 16 bit, with dLoss/dlogits / scale_unit, and results. The panel may be the logits.

    scale_unit () float32: the constant taken out of tokens.scale, so that a 16-bit panel holds numbers around 1. The loss's derivative in
    the entropy is -entropy_coef * scale, or grad_entropy (c,), already divided by scale_unit. shards as `combine_shards` returns it, for a
    vocabulary cut over ranks: then pass 1 is not run.
    """
    _launch(GRADIENT.value, logits, targets, head, tokens, settings, panel, results, shards, scale_unit, entropy_coef, grad_entropy)


def block_and_warps(columns: int) -> tuple[int, int]:
    """(BLOCK_V, num_warps), the same on sm_80, sm_90 and sm_100: 16 columns a thread, in four 16-byte loads.

    Chosen by what compiles well, not yet by time: at 4096, 64, 59 and 40 registers (triton 3.7.1), so four programs of 256 threads and more
    run on a multiprocessor, each with 16 KB of loads in flight.
    """
    if columns <= 1024:
        return 1024, 2
    return (2048, 4) if columns <= 32768 else (4096, 8)


def _launch(
    mode: int,
    logits: Tensor,
    targets: Tensor,
    head: Logits,
    tokens: Tokens | None = None,
    settings: ObjectiveSettings | None = None,
    panel: Tensor | None = None,
    results: RowResults | None = None,
    shards: Tensor | None = None,
    scale_unit: Tensor | None = None,
    entropy_coef: float = 0.0,
    grad_entropy: Tensor | None = None,
) -> None:
    rows, width = logits.shape
    if rows == 0:
        return
    assert logits.stride(1) == 1 and (panel is None or (panel.shape == logits.shape and panel.stride(1) == 1))
    scaling = head.scaling
    per_row = isinstance(scaling.temperature, Tensor) and scaling.temperature.dim() > 0
    arguments = {
        "logits_ptr": logits, "logits_stride": logits.stride(0), "targets_ptr": _flat(targets), "bias_ptr": _flat(head.bias),
        "panel_ptr": panel, "panel_stride": 0 if panel is None else panel.stride(0),
        "temperature_ptr": _flat(scaling.temperature) if per_row else None, "temperature": 1.0 if per_row else float(scaling.temperature),
        "scale_unit_ptr": scale_unit, "h_ptr": _flat(grad_entropy),
        "shard_ptr": shards, "shard_stride": 0 if shards is None else shards.stride(0),
        "V": width if head.vocabulary is None else head.vocabulary, "width": width,
        "logit_scale": float(scaling.logit_scale), "softcap": float(scaling.softcap or 0.0), "entropy_coef": float(entropy_coef),
    } | token_arguments(tokens, settings) | result_arguments(results)  # fmt: skip
    block, warps = block_and_warps(width)
    with torch.cuda.device_of(logits):
        row_kernel[(rows,)](
            **arguments, MODE=mode, SOFTCAP=scaling.softcap is not None, COMBINED=shards is not None and mode != SHARD.value,
            BLOCK_V=block, num_warps=warps,
        )  # fmt: skip


def token_arguments(tokens: Tokens | None, settings: ObjectiveSettings | None) -> dict:
    if tokens is None or settings is None:
        names = ("advantages_ptr", "scale_ptr", "old_ptr", "ref_ptr", "sampler_ptr")
        numbers = ("lower", "upper", "cap", "beta", "tis_cap", "tau_pos", "tau_neg")
        return dict.fromkeys(names) | dict.fromkeys(numbers, 0.0) | {"KIND": 0, "HAS_KL": False, "HAS_TIS": False}
    return {
        "advantages_ptr": _flat(tokens.grad_logprobs if settings.kind == "given" else tokens.advantages),
        "scale_ptr": _flat(tokens.scale), "old_ptr": _flat(tokens.old_logprobs),
        "ref_ptr": _flat(tokens.ref_logprobs) if settings.beta else None,
        "sampler_ptr": None if settings.tis_cap is None else _flat(tokens.sampler_logprobs),
        "lower": 1.0 - settings.clip_low, "upper": 1.0 + settings.clip_high,
        "cap": math.inf if settings.delta is None else float(settings.delta),
        "beta": float(settings.beta), "tis_cap": float(settings.tis_cap or 0.0),
        "tau_pos": float(settings.tau_pos), "tau_neg": float(settings.tau_neg),
        "KIND": KINDS.index(settings.kind), "HAS_KL": settings.beta != 0, "HAS_TIS": settings.tis_cap is not None,
    }  # fmt: skip


def result_arguments(results: RowResults | None) -> dict:
    names = ("logp_ptr", "entropy_ptr", "lse_ptr", "loss_ptr", "flags_ptr")
    return dict.fromkeys(names) if results is None else dict(zip(names, vars(results).values(), strict=True))


def _flat(column: Tensor | None) -> Tensor | None:
    """The kernel reads neighbours; a gradient that comes from a sum has stride 0."""
    return None if column is None else column.contiguous()
