"""OpenRLHF's `PolicyLoss` by ours: the same settings, call and results. Made for OpenRLHF 0.11.

    loss_fn = PolicyLoss(clip_eps_low=0.2, clip_eps_high=0.28)           # in place of openrlhf.models.PolicyLoss
    loss, clip_ratio, ppo_kl, vllm_kl, is_filter_ratio = loss_fn(log_probs, old_log_probs, advantages, action_mask=mask)

Computed: policy_loss_type "ppo" with dual clip, both aggregations, and the correction for the sampler's log-probs by their ratio, clipped
or masked, by token or by sequence. Refused: "gspo" and corrections gated by a divergence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastgrpo.integrations.batches import aggregation_scale, batch_policy_loss, clipped_share, share


@dataclass(frozen=True)
class PolicyLoss:
    clip_eps_low: float = 0.2
    clip_eps_high: float = 0.2
    dual_clip: float | None = None
    token_level_loss: bool = True
    policy_loss_type: str = "ppo"
    is_correction_level: str = "off"
    is_correction_mode: str = "mask"
    is_correction_gating: str = "ratio"
    is_correction_threshold: tuple[float, float] = (0.5, 5.0)

    def __post_init__(self) -> None:
        allowed = {
            "policy_loss_type": ("ppo",),
            "is_correction_level": ("off", "token", "seq"),
            "is_correction_mode": ("mask", "clip"),
            "is_correction_gating": ("ratio",),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r} is not computed, only {' and '.join(values)}: keep OpenRLHF's own loss")
        if self.is_correction_mode == "clip" and self.is_correction_level == "seq":
            raise ValueError("is_correction_mode='clip' goes with is_correction_level='token': a sequence is kept or masked")

    def __call__(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        action_mask: Tensor | None = None,
        rollout_log_probs: Tensor | None = None,
        dp_size: int = 1,
        batch_num_tokens: float | None = None,
        global_batch_size: float | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """(loss (), differentiable; clip ratio; KL; KL to the sampler and filtered share, or None). All tensors (B, K)."""
        mask = torch.ones_like(log_probs) if action_mask is None else action_mask
        clipped = clipped_share(log_probs, old_log_probs, advantages, mask, self.clip_eps_low, self.clip_eps_high)
        vllm_kl = filtered = None
        if self.is_correction_level != "off":
            weights, filtered = self.sampler_weights(old_log_probs, rollout_log_probs, mask)
            advantages = advantages * weights
            vllm_kl = share(((rollout_log_probs - old_log_probs) * mask).sum(), mask)
        aggregation = "token-mean" if self.token_level_loss else "seq-mean-token-mean"
        ranks = dp_size if (batch_num_tokens if self.token_level_loss else global_batch_size) is not None else 1
        scale = aggregation_scale(mask, aggregation, batch_num_tokens, global_batch_size) * ranks
        settings = {"clip_low": self.clip_eps_low, "clip_high": self.clip_eps_high, "delta": self.dual_clip}
        out = batch_policy_loss(log_probs, mask, scale, advantages, kind="clip", old_logprobs=old_log_probs, **settings)
        return out.loss, clipped, share(out.stats["k1_sum"], mask), vllm_kl, filtered

    def sampler_weights(self, old: Tensor, sampler: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) or (B, 1) factors >= 0 of the loss, and the share of tokens, or sequences, out of the band."""
        (low, high), log_ratio = self.is_correction_threshold, (old - sampler).detach()
        if self.is_correction_level == "seq":
            statistic = ((log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)).exp()
        else:
            statistic = log_ratio.exp()
        outside = ~((statistic >= low) & (statistic <= high))  # so is a sequence without tokens, which has no mean
        share_outside = outside.double().mean() if self.is_correction_level == "seq" else share((outside * mask).sum(), mask)
        weights = statistic.clamp(low, high) if self.is_correction_mode == "clip" else torch.where(outside, 0.0, log_ratio.exp())
        return weights, share_outside.to(old.dtype)
