"""Log-probs and entropies of given tokens straight from hidden states: for old and reference passes, and for any loss of one's own.

Differentiable by computing every tile of logits a second time in backward (8 M H V FLOPs in all), so no logits are kept. Bit for bit the
log-probs of `fused_linear_policy_loss`, because both run the same tiles.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgrpo_kernels.checks import require_head, require_positive, require_targets_in_vocabulary
from fastgrpo_kernels.row import compute_dtype, row_gradient_, row_stats_
from fastgrpo_kernels.tiles import head_weight, logit_tiles


def linear_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-prob of each target and entropy, in nats, under softmax(hidden weight^T / temperature).

    hidden (T, H) and weight (V, H) of one float dtype, rows of hidden at any stride; targets (T,) int64 in 0..V-1. Returns logprobs (T,)
    and entropy (T,), float64 for float64 input and float32 otherwise, both differentiable in hidden and weight.
    Raises ValueError on bad shapes, dtypes, devices, targets out of range (CPU only) and a temperature that is not a finite number > 0.
    Source: log pi_theta(o_t | q, o_<t), arXiv:2503.20783, Eq. 2.
    """
    require_head(hidden, weight, targets)
    require_positive("temperature", temperature)
    require_targets_in_vocabulary(targets, len(weight))
    return _LinearLogprobs.apply(hidden, weight, targets, temperature)


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature):
        logp, entropy = (hidden.new_empty(len(hidden), dtype=compute_dtype(hidden.dtype)) for _ in range(2))
        with torch.autocast(hidden.device.type, enabled=False):
            for at, _, logits in logit_tiles(hidden, head_weight(weight), _all_rows(hidden)):
                logp[at], entropy[at] = row_stats_(logits, targets[at], temperature)
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, g, h):
        hidden, weight, targets = ctx.saved_tensors
        g = hidden.new_zeros(len(hidden), dtype=compute_dtype(hidden.dtype)) if g is None else g
        head = head_weight(weight)
        grad_hidden = hidden.new_empty(hidden.shape) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden.device.type, enabled=False):
            for at, x, logits in logit_tiles(hidden, head, _all_rows(hidden)):
                h_tile = None if h is None else h[at]
                _, entropy = row_stats_(logits, targets[at], ctx.temperature)
                panel = row_gradient_(logits, targets[at], entropy, g[at], h_tile, ctx.temperature)
                if grad_hidden is not None:
                    grad_hidden[at] = panel @ head
                if grad_weight is not None:
                    grad_weight.addmm_(panel.t(), x)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None


def _all_rows(hidden: Tensor) -> Tensor:
    return torch.arange(len(hidden), device=hidden.device)
