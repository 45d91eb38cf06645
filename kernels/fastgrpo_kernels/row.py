"""Closed forms per row of a tile of logits: log-prob and entropy, and from them the panel G = dLoss/dlogits.

    p = softmax(logits / temperature)     logp = log p[target]     entropy = -sum_v p log p     (terms of one sign: nothing cancels)
    G = (g (onehot - p) - h p (log p + entropy)) / temperature     g = dLoss/dlogp, h = dLoss/dentropy;     sum over v of G = 0

Both functions overwrite their tile: logits become p, p becomes G, so that one buffer serves the whole head. The work goes through some rows
at a time to bound the scratch memory. float64 stays float64, everything else is computed in float32.
"""

import torch
from torch import Tensor

# Bytes of a tile worked on together. 2 and 16 MiB ran equally fast on two idle Zen 5 cores; but every operation on a block is a meeting
# point of all threads, milliseconds each on a machine shared with others, so the blocks are large and few.
_BLOCK_BYTES = 16 << 20
_FLOOR = -1e4  # stands in for log 0, so that 0 * log 0 is 0: exp(_FLOOR) is 0 even in float64


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def row_stats_(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-prob of the target and entropy, nats, (c,), of each row of softmax(logits / temperature); logits become these probabilities.

    logits (c, V) float32 or float64, -inf allowed (a padded vocabulary); targets (c,) int64. A row's result does not depend on the others.
    """
    logp, entropy = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    for rows in _blocks(logits):
        block = logits[rows] if temperature == 1 else logits[rows].div_(temperature)
        log_p = block.log_softmax(dim=1)
        logp[rows] = log_p.gather(1, targets[rows, None]).squeeze(1)
        p = torch.exp(log_p, out=block)
        entropy[rows] = -log_p.clamp_(min=_FLOOR).mul_(p).sum(dim=1)
    return logp, entropy


def row_gradient_(probs: Tensor, targets: Tensor, entropy: Tensor, g: Tensor, h: Tensor | None, temperature: float) -> Tensor:
    """Turns the probabilities (c, V) that `row_stats_` left behind into G = dLoss/dlogits, and returns them.

    entropy (c,) as `row_stats_` returned it; g = dLoss/dlogp (c,); h = dLoss/dentropy (c,), or None where the loss has no entropy term.
    """
    g = g[:, None] / temperature
    for rows in _blocks(probs):
        p = probs[rows]
        if h is None:
            p.mul_(-g[rows])
        else:
            surprise = p.log().clamp_(min=_FLOOR).add_(entropy[rows, None])
            p.mul_(surprise.mul_(-h[rows, None] / temperature).sub_(g[rows]))
    return probs.scatter_add_(1, targets[:, None], g)


def _blocks(tile: Tensor) -> list[slice]:
    rows, vocabulary = tile.shape
    step = max(1, _BLOCK_BYTES // (vocabulary * tile.dtype.itemsize))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
