"""oat's policy loss, with which the paper's models were trained, by ours: one call for what its learner writes out for a micro-batch.

Formula (sail-sg/oat, arXiv:2503.20783): the mean over the B responses of loss_mask * aggregate(max(-A r, -A clip(r)) * tis + beta k3),
aggregate being a sum over tokens divided by generate_max_length for critic_type "drgrpo", the mean over tokens for "grpo". oat cannot
be installed beside a current Python, so the tests hold this to the formula.
"""

from __future__ import annotations

from torch import Tensor

from fastgrpo.integrations.batches import aggregation_scale, batch_policy_loss
from fastgrpo_kernels import PolicyLossOutput


def policy_loss(
    new_logps: Tensor,
    logps: Tensor,
    advantages: Tensor,
    response_masks: Tensor,
    loss_masks: Tensor,
    *,
    critic_type: str,
    generate_max_length: int,
    cliprange: float = 0.2,
    reinforce_update: bool = False,
    beta: float = 0.0,
    ref_logps: Tensor | None = None,
    tis_c: float | None = None,
    actor_logps: Tensor | None = None,
) -> PolicyLossOutput:
    """new_logps, logps, ref_logps, actor_logps, response_masks (B, K); advantages (B, 1) or (B, K); loss_masks (B,) of 0 and 1.

    The mean counts masked responses too. Raises ValueError for a critic_type that has a critic.
    """
    modes = {"drgrpo": "seq-mean-token-sum-norm", "grpo": "seq-mean-token-mean"}
    if critic_type not in modes:
        raise ValueError(f"critic_type={critic_type!r} is not computed, only {' and '.join(modes)}: there is no value loss here")
    scale = aggregation_scale(response_masks, modes[critic_type], sequences=len(response_masks), length=generate_max_length)
    bounds = (
        {"kind": "reinforce"} if reinforce_update else {"kind": "clip", "clip_low": cliprange, "clip_high": cliprange, "tis_cap": tis_c}
    )
    mask = response_masks * loss_masks[:, None]
    columns = {"old_logprobs": logps, "ref_logprobs": ref_logps, "sampler_logprobs": actor_logps}
    return batch_policy_loss(new_logps, mask, scale, advantages, beta=beta, **bounds, **columns)
