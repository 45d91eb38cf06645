"""The loop over tiles of `fused_linear_policy_loss`, as one operator, so that torch.compile keeps it whole instead of tracing into it.

    Z = X_tile W^T          Z -> logp, entropy -> g = dLoss/dlogp, h = dLoss/dentropy          Z <- G = dLoss/dZ
    dX_tile = G W           dW += G^T X_tile           dbias += sum over rows of G

One buffer holds Z, then its probabilities, then G: see `row`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastgrpo_kernels.arguments import kept_rows
from fastgrpo_kernels.checks import require_positive_temperatures, require_targets_in_vocabulary
from fastgrpo_kernels.objective import ObjectiveSettings, Tokens, objective
from fastgrpo_kernels.policy_loss import scaled_sum
from fastgrpo_kernels.row import Scaling, compute_dtype, row_gradient_, row_stats_, scale_logits_
from fastgrpo_kernels.stats import STATS, packed_stats
from fastgrpo_kernels.tiles import head_weight, logit_tiles


def runs_on_kernel(hidden: Tensor) -> bool:
    """CUDA tensors take the loop of `cuda_linear`, which needs triton; float64 stays with torch on every device."""
    return hidden.is_cuda and hidden.dtype != torch.float64


@dataclass(frozen=True)
class Gradients:
    """Accumulators in the dtype of the products, which they keep until backward has scaled them; None where not wanted."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @staticmethod
    def zeros(hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...]) -> "Gradients":
        dtype = compute_dtype(hidden.dtype)
        inputs = zip((hidden, weight, bias), wanted, strict=True)
        return Gradients(*(torch.zeros(value.shape, dtype=dtype, device=value.device) if want else None for value, want in inputs))

    def any(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def add_(self, rows: Tensor, panel: Tensor, x: Tensor, head: Tensor) -> None:
        """Takes in the panel G (c, V) of these rows (c,) of hidden, x (c, H); a head cut to its vocabulary leaves the padding's zeros."""
        columns = len(head)
        if self.hidden is not None:
            self.hidden[rows] = torch.mm(panel, head)
        if self.weight is not None:
            self.weight[:columns].addmm_(panel.t(), x)
        if self.bias is not None:
            self.bias[:columns].add_(panel.sum(dim=0))


@torch.library.custom_op(
    "fastgrpo_kernels::linear_policy_loss",
    mutates_args=(),
    schema="(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? loss_mask, Tensor? rows, Tensor?[] columns, "
    f"int? vocab_size, {Scaling.SCHEMA}, {ObjectiveSettings.SCHEMA}, float entropy_coef, bool want_hidden, bool want_weight, "
    "bool want_bias) -> (Tensor loss, Tensor logprobs, Tensor entropy, Tensor stats, Tensor dhidden, Tensor dweight, Tensor dbias)",
)
def linear_policy_op(hidden, weight, bias, targets, loss_mask, rows, columns, vocab_size, *numbers):
    """(loss (), logprobs (T,), entropy (T,), packed stats, dhidden, dweight, dbias); a gradient not wanted has shape (0,)."""
    scaling, settings = Scaling.of(*numbers[: Scaling.ARGUMENTS]), ObjectiveSettings(*numbers[Scaling.ARGUMENTS : -4])
    entropy_coef, *wanted = numbers[-4:]
    tokens = Tokens(*columns)
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        signal = None if settings.beta or entropy_coef else tokens.signal()
        rows, count = kept_rows(hidden, loss_mask, rows, signal)
        head, bias_head = weight[:vocab_size], None if bias is None else bias[:vocab_size]
        kept, scaling, targets = tokens.take(rows, compute_dtype(hidden.dtype)), scaling.take(rows), targets[rows]
        require_targets_in_vocabulary(targets, len(head))
        require_positive_temperatures(scaling.temperature)
        gradients = Gradients.zeros(hidden, weight, bias, wanted)
        loop = tile_loop
        if runs_on_kernel(hidden):
            from fastgrpo_kernels.cuda_linear import policy_loop as loop
        logprobs, entropy = loop(hidden, head, bias_head, targets, rows, kept, settings, scaling, entropy_coef, gradients)
        terms = objective(logprobs, kept, settings)
        if entropy_coef:
            terms = terms._replace(loss=terms.loss - entropy_coef * entropy)
        stats = packed_stats(terms, count, entropy)
        columns = (column.new_zeros(len(hidden)).index_copy_(0, rows, column) for column in (logprobs, entropy))
    made = (logprobs.new_empty(0) if value is None else value for value in vars(gradients).values())
    return scaled_sum(kept.scale, terms.loss), *columns, stats, *made


@linear_policy_op.register_fake
def _(hidden, weight, bias, targets, loss_mask, rows, columns, vocab_size, *numbers):
    dtype = compute_dtype(hidden.dtype)
    per_token = (hidden.new_empty(len(hidden), dtype=dtype) for _ in range(2))
    inputs = zip((hidden, weight, bias), numbers[-3:], strict=True)
    made = (hidden.new_empty(value.shape if want else 0, dtype=dtype) for value, want in inputs)
    return hidden.new_empty((), dtype=dtype), *per_token, hidden.new_empty(STATS, dtype=torch.float64), *made


def tile_loop(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    rows: Tensor,
    kept: Tokens,
    settings: ObjectiveSettings,
    scaling: Scaling,
    entropy_coef: float,
    gradients: Gradients,
) -> tuple[Tensor, Tensor]:
    """Adds into gradients and returns logprobs and entropy, (M,). rows (M,) are those of hidden (T, H); targets, kept, scaling are (M,);
    head (V, H) and bias (V,) are in their own dtype.

    The scale goes into the panel here, which has the precision of the products. A 16-bit panel must keep its constant part out.
    """
    head, bias = head_weight(head), None if bias is None else head_weight(bias)
    logprobs, entropy = (head.new_empty(len(rows)) for _ in range(2))
    for at, x, logits in logit_tiles(hidden, head, bias, rows):
        here = scaling.take(at)
        slope = scale_logits_(logits, here, gradients.any())
        logprobs[at], entropy[at] = row_stats_(logits, targets[at])
        if not gradients.any():
            continue
        tile = kept.take(at, head.dtype)
        g = tile.scale * objective(logprobs[at], tile, settings).gradient
        h = -entropy_coef * tile.scale if entropy_coef else None
        gradients.add_(rows[at], row_gradient_(logits, targets[at], entropy[at], g, h, here, slope), x, head)
    return logprobs, entropy
