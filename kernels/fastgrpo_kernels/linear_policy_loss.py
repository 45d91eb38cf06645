"""From hidden states to the policy-gradient loss, with the gradients made in the forward pass: three products per tile of tokens.

Surprising: backward computes nothing. The aggregation is only a scale per token that is known beforehand, so a tile of logits can be turned
into its own gradient and multiplied into dX and dW before the next tile overwrites it: 6 M H V FLOPs, the minimum, and no (T, V) tensor.

M of the T rows are kept: masked rows never reach the head, nor do rows with A = 0 when there is neither a KL nor an entropy term, whose
gradient is exactly zero. Time scales with M. The loop over tiles is in `linear_policy_op`.
"""

import torch
from torch import Tensor

from fastgrpo_kernels.arguments import checked_tokens, objective_settings
from fastgrpo_kernels.checks import require_finite, require_head, require_rows, require_scaling
from fastgrpo_kernels.gradients_made import GradientsMade
from fastgrpo_kernels.linear_policy_op import linear_policy_op
from fastgrpo_kernels.objective import Tokens
from fastgrpo_kernels.row import Scaling
from fastgrpo_kernels.stats import PolicyLossOutput, unpacked_stats


def fused_linear_policy_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float | Tensor,
    advantages: Tensor | None = None,
    grad_logprobs: Tensor | None = None,
    kind: str = "clip",
    clip_low: float | None = None,
    clip_high: float | None = None,
    scale: Tensor | None = None,
    denominator: float | None = None,
    loss_mask: Tensor | None = None,
    rows: Tensor | None = None,
    old_logprobs: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    entropy_coef: float = 0.0,
    tis_cap: float | None = None,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
) -> PolicyLossOutput:
    """sum over tokens of scale * (l - entropy_coef * entropy), l as in `policy_loss`, on log softmax(z) of the head's logits.

    hidden (T, H), weight (V, H) and bias (V,) of one float dtype, rows of hidden at any stride; targets (T,) int64: hidden[t] predicts
    targets[t]; temperature, logit_scale, softcap and vocab_size as in `linear_logprobs`, the rest as in `policy_loss`. rows, unlike
    loss_mask, are computed even where A = 0.
    Returns loss (), differentiable in hidden, weight and bias, once; logprobs and entropy (T,) in nats, detached, float64 for float64 input
    and float32 otherwise, 0 in rows not computed; stats, see `stats`. Without gradients asked for, only the forward product is run.
    Extra memory: one tile of logits (48 MiB, more when 256 rows need more; twice that with a softcap), the gradients, and a float32 copy of
    a 16-bit weight. Raises ValueError on bad shapes, dtypes, devices or numbers, and RuntimeError in a second backward.
    """
    require_head(hidden, weight, targets, bias, vocab_size)
    require_scaling(temperature, logit_scale, softcap, len(hidden), hidden.device)
    require_finite("entropy_coef", entropy_coef)
    require_rows(rows, loss_mask, len(hidden), hidden.device)
    settings = objective_settings(kind, clip_low, clip_high, delta, beta, tis_cap, tau_pos, tau_neg)
    tokens = Tokens(advantages, scale, old_logprobs, ref_logprobs, sampler_logprobs, grad_logprobs)
    tokens = checked_tokens(hidden, settings, tokens, denominator)
    inputs = (hidden, weight, bias)
    wanted = [torch.is_grad_enabled() and tensor is not None and tensor.requires_grad for tensor in inputs]
    detached = (None if tensor is None else tensor.detach() for tensor in inputs)
    scaling = Scaling(temperature, logit_scale, softcap).arguments()
    loss, logprobs, entropy, packed, *made = linear_policy_op(
        *detached, targets, loss_mask, rows, tokens.columns(), vocab_size, *scaling, *settings.arguments(), entropy_coef, *wanted
    )
    gradients = (gradient if want else None for gradient, want in zip(made, wanted, strict=True))
    loss = GradientsMade.apply("fused_linear_policy_loss", loss, None, *inputs, *gradients)
    return PolicyLossOutput(loss, logprobs, entropy, unpacked_stats(packed, ref_logprobs, sampler_logprobs, tis_cap, entropy=True))
