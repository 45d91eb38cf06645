"""Log-probs and entropies of given tokens straight from hidden states: for old and reference passes, and for any loss of one's own.

Differentiable by computing every tile of logits a second time in backward (8 M H V FLOPs in all), so no logits are kept. Bit for bit the
log-probs of `fused_linear_policy_loss`, because both run the same tiles.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgrpo_kernels.checks import require_head, require_positive_temperatures, require_scaling, require_targets_in_vocabulary
from fastgrpo_kernels.linear_policy_op import Gradients, runs_on_kernel
from fastgrpo_kernels.row import Scaling, compute_dtype, row_gradient_, row_stats_, scale_logits_
from fastgrpo_kernels.tiles import head_weight, logit_tiles


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float | Tensor,
    *,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-prob of each target and entropy, in nats, under softmax(z), z = softcap tanh(logit_scale logit / softcap) / temperature.

    hidden (T, H), weight (V, H) and bias (V,) of one float dtype, rows of hidden at any stride, logit = hidden weight^T + bias; targets
    (T,) int64 in 0..vocab_size-1; temperature a number or (T,) float32 or float64, one per token, a constant to autograd; softcap None: no
    cap. Columns from vocab_size on are padding: probability 0. So are columns whose bias is -inf. None: there is no padding.
    Returns logprobs (T,) and entropy (T,), float64 for float64 input and float32 otherwise, both differentiable in hidden, weight and bias.
    Raises ValueError on bad shapes, dtypes, devices, targets out of range (CPU only) and a temperature that is not a finite number > 0.
    Source: log pi_theta(o_t | q, o_<t), arXiv:2503.20783, Eq. 2.
    """
    require_head(hidden, weight, targets, bias, vocab_size)
    require_scaling(temperature, logit_scale, softcap, len(hidden), hidden.device)
    return _LinearLogprobs.apply(hidden, weight, bias, targets, vocab_size, *Scaling(temperature, logit_scale, softcap).arguments())


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, vocab_size, temperature, temperatures, logit_scale, softcap):
        ctx.save_for_backward(hidden, weight, bias, targets, temperatures)
        ctx.numbers = vocab_size, temperature, logit_scale, softcap
        ctx.set_materialize_grads(False)
        return _forward_op(hidden, weight, bias, targets, vocab_size, temperature, temperatures, logit_scale, softcap)

    @staticmethod
    @once_differentiable
    def backward(ctx, g, h):
        hidden, weight, bias, targets, temperatures = ctx.saved_tensors
        vocab_size, temperature, logit_scale, softcap = ctx.numbers
        scaling = (temperature, temperatures, logit_scale, softcap)
        wanted = ctx.needs_input_grad[:3]
        made = _backward_op(hidden, weight, bias, targets, g, h, vocab_size, *scaling, *wanted)
        return *(gradient if want else None for gradient, want in zip(made, wanted, strict=True)), *(None for _ in range(6))


_INPUTS = "Tensor hidden, Tensor weight, Tensor? bias, Tensor targets"


@torch.library.custom_op(
    "fastgrpo_kernels::linear_logprobs",
    mutates_args=(),
    schema=f"({_INPUTS}, int? vocab_size, {Scaling.SCHEMA}) -> (Tensor logprobs, Tensor entropy)",
)
def _forward_op(hidden, weight, bias, targets, vocab_size, *scaling):
    scaling = Scaling.of(*scaling)
    require_positive_temperatures(scaling.temperature)
    logp, entropy = (hidden.new_empty(len(hidden), dtype=compute_dtype(hidden.dtype)) for _ in range(2))
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        head, bias = _cut(weight, bias, vocab_size)
        require_targets_in_vocabulary(targets, len(head))
        if runs_on_kernel(hidden):
            from fastgrpo_kernels.cuda_linear import logprobs_loop

            return logprobs_loop(hidden, head, bias, targets, scaling)
        head, bias = head_weight(head), None if bias is None else head_weight(bias)
        for at, _, logits in logit_tiles(hidden, head, bias, _all_rows(hidden)):
            scale_logits_(logits, scaling.take(at), want_slope=False)
            logp[at], entropy[at] = row_stats_(logits, targets[at])
    return logp, entropy


@_forward_op.register_fake
def _(hidden, weight, bias, targets, vocab_size, *scaling):
    return tuple(hidden.new_empty(len(hidden), dtype=compute_dtype(hidden.dtype)) for _ in range(2))


@torch.library.custom_op(
    "fastgrpo_kernels::linear_logprobs_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor? g, Tensor? h, int? vocab_size, {Scaling.SCHEMA}, bool want_hidden, bool want_weight, bool want_bias) -> "
    "(Tensor dhidden, Tensor dweight, Tensor dbias)",
)
def _backward_op(hidden, weight, bias, targets, g, h, vocab_size, *numbers):
    """Gradients in the dtype of their input, shape (0,) where not wanted."""
    scaling, wanted = Scaling.of(*numbers[: Scaling.ARGUMENTS]), numbers[Scaling.ARGUMENTS :]
    gradients = Gradients.zeros(hidden, weight, bias, wanted)
    g = hidden.new_zeros(len(hidden), dtype=compute_dtype(hidden.dtype)) if g is None else g
    loop = _backward_loop
    if runs_on_kernel(hidden):
        from fastgrpo_kernels.cuda_linear import logprobs_backward_loop as loop
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        loop(hidden, *_cut(weight, bias, vocab_size), targets, g, h, scaling, gradients)
    return tuple(hidden.new_empty(0) if value is None else value.to(hidden.dtype) for value in vars(gradients).values())


@_backward_op.register_fake
def _(hidden, weight, bias, targets, g, h, vocab_size, *numbers):
    inputs = zip((hidden, weight, bias), numbers[Scaling.ARGUMENTS :], strict=True)
    return tuple(hidden.new_empty(value.shape if want else 0) for value, want in inputs)


def _backward_loop(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    g: Tensor,
    h: Tensor | None,
    scaling: Scaling,
    gradients: Gradients,
) -> None:
    head, bias = head_weight(weight), None if bias is None else head_weight(bias)
    rows = _all_rows(hidden)
    for at, x, logits in logit_tiles(hidden, head, bias, rows):
        here = scaling.take(at)
        slope = scale_logits_(logits, here, want_slope=True)
        _, entropy = row_stats_(logits, targets[at])
        h_tile = None if h is None else h[at]
        gradients.add_(rows[at], row_gradient_(logits, targets[at], entropy, g[at], h_tile, here, slope), x, head)


def _cut(weight: Tensor, bias: Tensor | None, vocab_size: int | None) -> tuple[Tensor, Tensor | None]:
    return weight[:vocab_size], None if bias is None else bias[:vocab_size]


def _all_rows(hidden: Tensor) -> Tensor:
    return torch.arange(len(hidden), device=hidden.device)
