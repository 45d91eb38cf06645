"""Closed forms per row of a tile of logits: log-prob and entropy, and from them the panel G = dLoss/dlogits.

    z = softcap tanh(logit_scale logit / softcap) / temperature   (no softcap: logit_scale logit / temperature),   p = softmax(z)
    logp = log p[target]     entropy = -sum_v p log p     (terms of one sign: nothing cancels)
    G = dz/dlogit (g (onehot - p) - h p (log p + entropy))     g = dLoss/dlogp, h = dLoss/dentropy;     without softcap sum over v of G = 0

All three functions overwrite their tile: logits become z, then p, then G, so that one buffer serves the whole head. The work goes through
some rows at a time to bound the scratch memory. float64 stays float64, everything else is computed in float32.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

# Bytes of a tile worked on together. 2 and 16 MiB ran equally fast on two idle Zen 5 cores; but every operation on a block is a meeting
# point of all threads, milliseconds each on a machine shared with others, so the blocks are large and few.
_BLOCK_BYTES = 16 << 20
_FLOOR = -1e4  # stands in for log 0, so that 0 * log 0 is 0: exp(_FLOOR) is 0 even in float64


@dataclass(frozen=True)
class Scaling:
    """What turns a logit into z, see the module: temperature a number or (T,), one per row; softcap None: no cap."""

    temperature: float | Tensor
    logit_scale: float = 1.0
    softcap: float | None = None

    # The fields as an operator's arguments, of which there are ARGUMENTS.
    SCHEMA: ClassVar[str] = "float temperature, Tensor? temperatures, float logit_scale, float? softcap"
    ARGUMENTS: ClassVar[int] = 4

    def arguments(self) -> tuple[float | Tensor | None, ...]:
        if isinstance(self.temperature, Tensor):
            return 1.0, self.temperature.detach(), self.logit_scale, self.softcap
        return self.temperature, None, self.logit_scale, self.softcap

    @staticmethod
    def of(temperature: float, temperatures: Tensor | None, logit_scale: float, softcap: float | None) -> "Scaling":
        return Scaling(temperature if temperatures is None else temperatures, logit_scale, softcap)

    def take(self, rows: Tensor | slice) -> "Scaling":
        if not isinstance(self.temperature, Tensor):
            return self
        return Scaling(self.temperature[rows], self.logit_scale, self.softcap)

    def temperature_column(self) -> float | Tensor:
        """A number or (T, 1)."""
        return self.temperature[:, None] if isinstance(self.temperature, Tensor) else self.temperature


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def scale_logits_(logits: Tensor, scaling: Scaling, want_slope: bool) -> Tensor | None:
    """Turns logits (c, V) float32 or float64 into z; a logit of -inf (a padded vocabulary) stays -inf under a softcap too.

    Returns 1 - tanh^2 (c, V), what `row_gradient_` needs of a softcap, when wanted and there is one.
    """
    slope = None
    if scaling.logit_scale != 1:
        logits.mul_(scaling.logit_scale)
    if scaling.softcap is not None:
        padding = logits == -torch.inf
        bounded = logits.div_(scaling.softcap).tanh_()
        slope = bounded.square().neg_().add_(1) if want_slope else None
        logits.mul_(scaling.softcap).masked_fill_(padding, -torch.inf)
    if isinstance(scaling.temperature, Tensor) or scaling.temperature != 1:
        logits.div_(scaling.temperature_column())
    return slope


def row_stats_(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-prob of the target and entropy, nats, (c,), of each row of softmax(z); z become these probabilities.

    logits: the z (c, V) that `scale_logits_` left behind; targets (c,) int64. A row's result does not depend on the others.
    """
    logp, entropy = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    for rows in _blocks(logits):
        block = logits[rows]
        log_p = block.log_softmax(dim=1)
        logp[rows] = log_p.gather(1, targets[rows, None]).squeeze(1)
        p = torch.exp(log_p, out=block)
        entropy[rows] = -log_p.clamp_(min=_FLOOR).mul_(p).sum(dim=1)
    return logp, entropy


def row_gradient_(
    probs: Tensor, targets: Tensor, entropy: Tensor, g: Tensor, h: Tensor | None, scaling: Scaling, slope: Tensor | None = None
) -> Tensor:
    """Turns the probabilities (c, V) that `row_stats_` left behind into G = dLoss/dlogits, and returns them.

    entropy (c,) as `row_stats_` returned it; g = dLoss/dlogp (c,); h = dLoss/dentropy (c,), or None where the loss has no entropy term;
    slope as `scale_logits_` returned it.
    """
    factor = scaling.logit_scale / scaling.temperature_column()
    g = g[:, None] * factor
    h = None if h is None else h[:, None] * factor
    for rows in _blocks(probs):
        p = probs[rows]
        if h is None:
            p.mul_(-g[rows])
        else:
            surprise = p.log().clamp_(min=_FLOOR).add_(entropy[rows, None])
            p.mul_(surprise.mul_(-h[rows]).sub_(g[rows]))
    probs.scatter_add_(1, targets[:, None], g)
    return probs if slope is None else probs.mul_(slope)


def _blocks(tile: Tensor) -> list[slice]:
    rows, vocabulary = tile.shape
    step = max(1, _BLOCK_BYTES // (vocabulary * tile.dtype.itemsize))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
