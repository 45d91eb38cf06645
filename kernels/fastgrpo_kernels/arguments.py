"""From the keywords that the public losses share to the data behind them: settings, tokens, kept rows. Checked here, trusted afterwards."""

import math

import torch
from torch import Tensor

from fastgrpo_kernels.checks import TOKEN_DTYPES, require_increasing_rows, require_per_token, require_positive
from fastgrpo_kernels.objective import KINDS, ObjectiveSettings, Tokens

_READ = {"clip": ("clip_low", "clip_high", "delta"), "cispo": ("clip_high",)}  # of the three bounds; the other kinds read none


def objective_settings(
    kind: str,
    clip_low: float | None,
    clip_high: float | None,
    delta: float | None,
    beta: float,
    tis_cap: float | None,
    tau_pos: float,
    tau_neg: float,
) -> ObjectiveSettings:
    """A bound that the kind reads must be given (delta may be None: no cap), one that it does not read must not."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    reads = _READ.get(kind, ())
    for name, value in (("clip_low", clip_low), ("clip_high", clip_high), ("delta", delta)):
        if name in reads and value is None and name != "delta":
            raise ValueError(f"{name} must be given with kind = {kind!r}, got None")
        if name not in reads and value is not None:
            raise ValueError(f"{name} is not read by kind = {kind!r}, got {value!r}; leave it out")
    low, high = 1.0 if clip_low is None else clip_low, math.inf if clip_high is None else clip_high  # those that clip nothing
    return ObjectiveSettings(kind, low, high, delta, beta, tis_cap, tau_pos, tau_neg)


def checked_tokens(like: Tensor, settings: ObjectiveSettings, tokens: Tokens, denominator: float | None) -> Tokens:
    """The per-token inputs, each checked against the (T,), (T, H) or (T, V) tensor `like`, with denominator turned into scale."""
    count, device = len(like), like.device
    if (tokens.scale is None) == (denominator is None):
        given = "neither" if denominator is None else "both"
        raise ValueError(f"give exactly one of scale (a tensor, ({count},)) and denominator (a number > 0), got {given}")
    signal, other = ("grad_logprobs", "advantages") if settings.kind == "given" else ("advantages", "grad_logprobs")
    if getattr(tokens, other) is not None:
        raise ValueError(f"{other} must be None with kind = {settings.kind!r}, which reads {signal} instead")
    if settings.beta and tokens.ref_logprobs is None:
        raise ValueError(f"ref_logprobs must be given with beta = {settings.beta}, got None; or set beta = 0")
    if settings.tis_cap is not None and tokens.sampler_logprobs is None:
        raise ValueError(f"sampler_logprobs must be given with tis_cap = {settings.tis_cap}, got None; or set tis_cap = None")
    for name, column in tokens.by_name().items():
        if column is not None or name == signal:
            require_per_token(name, column, count, device, TOKEN_DTYPES)
    if denominator is None:
        return tokens
    require_positive("denominator", denominator)
    scale = torch.full((count,), 1.0 / denominator, dtype=torch.float64, device=device)
    return Tokens(**(tokens.by_name() | {"scale": scale}))


def kept_rows(like: Tensor, loss_mask: Tensor | None, rows: Tensor | None, signal: Tensor | None) -> tuple[Tensor, Tensor]:
    """(rows (M,) int64 to compute, tokens () int64 that the mask lets through), on the device of `like` (T, ...).

    rows, if given, are taken as they are, without waiting for a GPU. Otherwise they are those of loss_mask where signal (T,) bool holds.
    """
    if rows is not None:
        require_increasing_rows(rows, len(like))
        return rows.to(like.device), torch.full((), len(rows), dtype=torch.int64, device=like.device)
    mask = torch.ones(len(like), dtype=torch.bool, device=like.device) if loss_mask is None else loss_mask
    return (mask if signal is None else mask & signal).nonzero().squeeze(1), mask.sum()
