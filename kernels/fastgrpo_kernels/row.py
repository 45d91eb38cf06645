"""Closed forms per row of a tile of logits: log-prob, entropy and logsumexp, and from them the panel G = dLoss/dlogits.

    x = logits / temperature     p = softmax(x)     lse = logsumexp(x)     z = x - max(x)     s = sum exp(z)     u = sum z exp(z)
    logp = z[target] - log s     entropy = log s - u / s                   (from z: no cancellation of large numbers)
    G = (g (onehot - p) - h p (x - lse + entropy)) / temperature           with g = dLoss/dlogp, h = dLoss/dentropy; sum over v of G = 0

These are the plain-PyTorch row functions, and the surprise is the inner loop: some rows at a time, because every
elementwise pass is bound by memory. float64 stays float64, everything else is computed in float32.
"""

import torch
from torch import Tensor

# Bytes of logits worked on together. Smaller blocks stay nearer in the cache, but each operation on one is a meeting point of all threads,
# which is dear on a machine shared with others: 2 MiB was no faster than 16 alone and three times slower under load (two Zen 5 cores).
_BLOCK_BYTES = 16 << 20
_FLOOR = -1e4  # stands in for log 0 where a padded vocabulary column holds -inf: exp(_FLOOR) is 0 in float64, and 0 * _FLOOR is 0, not NaN


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def row_stats(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-prob of the target, entropy and logsumexp, in nats, of each row of softmax(logits / temperature).

    logits (c, V) any float dtype; targets (c,) int64. Returns three (c,) tensors, float64 for float64 and float32 otherwise. A row's
    result does not depend on the other rows.
    """
    dtype = compute_dtype(logits.dtype)
    logp, entropy, lse = (torch.empty(len(logits), dtype=dtype, device=logits.device) for _ in range(3))
    for rows in _blocks(logits):
        block = logits[rows].to(dtype)
        maximum = block.amax(dim=1, keepdim=True)
        z = _divide_(block - maximum, temperature)
        at_target = z.gather(1, targets[rows, None]).squeeze(1)
        e = z.exp()
        s = e.sum(dim=1)
        u = e.mul_(z.clamp_(min=_FLOOR)).sum(dim=1)
        log_s = s.log()
        logp[rows] = at_target - log_s
        entropy[rows] = log_s - u / s
        lse[rows] = maximum.squeeze(1) / temperature + log_s
    return logp, entropy, lse


def row_gradient(
    logits: Tensor, targets: Tensor, lse: Tensor, entropy: Tensor, g: Tensor, h: Tensor | None, temperature: float, out: Tensor
) -> Tensor:
    """Writes G = dLoss/dlogits (c, V) into out, which may be logits itself, and returns it.

    lse, entropy (c,) as `row_stats` returned them; g = dLoss/dlogp (c,); h = dLoss/dentropy (c,), or None where the loss has no entropy
    term, which saves two passes.
    """
    dtype = compute_dtype(logits.dtype)
    g = g.to(dtype) / temperature
    h = None if h is None else h.to(dtype) / temperature
    for rows in _blocks(logits):
        panel = _divide_(out[rows].copy_(logits[rows]) if out.dtype == dtype else logits[rows].to(dtype, copy=True), temperature)
        log_p = panel.sub_(lse[rows, None])
        if h is None:
            log_p.exp_().mul_(-g[rows, None])
        else:
            p = log_p.exp()
            slope = log_p.clamp_(min=_FLOOR).add_(entropy[rows, None]).mul_(h[rows, None]).add_(g[rows, None])
            slope.mul_(p).neg_()
        panel.scatter_add_(1, targets[rows, None], g[rows, None])
        if out.dtype != dtype:
            out[rows] = panel
    return out


def _divide_(values: Tensor, temperature: float) -> Tensor:
    return values if temperature == 1 else values.div_(temperature)


def _blocks(logits: Tensor) -> list[slice]:
    rows, vocabulary = logits.shape
    step = max(1, _BLOCK_BYTES // (vocabulary * compute_dtype(logits.dtype).itemsize))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
