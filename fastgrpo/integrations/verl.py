"""verl's policy losses by ours, under its own signature: register() once, then name one in the actor's `policy_loss.loss_mode`.

    from fastgrpo.integrations import verl
    verl.register()                          # actor_rollout_ref.actor.policy_loss.loss_mode=fastgrpo_vanilla

Each takes old_log_prob, log_prob, advantages, response_mask (B, K), loss_agg_mode, verl's actor config, and rollout_is_weights or None,
and returns the loss (), differentiable in log_prob, and verl's metrics. Made for verl 0.9. Log-probs and entropies from hidden states, in
place of its `linear_cross_entropy`, are `batches.logprobs_of_hidden`.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fastgrpo.integrations.batches import aggregation_scale, batch_policy_loss, clipped_share, share


def vanilla(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="token-mean", config=None, rollout_is_weights=None):
    """The clipped loss with its dual clip: the ratio is capped at clip_ratio_c where the advantage is negative."""
    low, high = _bounds(config)
    cap = config.get("clip_ratio_c", 3.0)
    settings = {"clip_low": low, "clip_high": high, "delta": cap}
    loss, metrics = _loss("clip", settings, old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights)
    capped = (log_prob.detach() - old_log_prob > math.log(cap)) & (advantages < 0) & response_mask.bool()
    clipped = clipped_share(log_prob, old_log_prob, advantages, response_mask, low, high)
    return loss, metrics | {
        "actor/pg_clipfrac": clipped.item(),
        "actor/pg_clipfrac_lower": share(capped.sum(), response_mask).item(),
    }


def cispo(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="token-mean", config=None, rollout_is_weights=None):
    """The log-prob weighted by the ratio, which is clipped from both sides and takes no gradient."""
    low, high = _bounds(config)
    ratio = (log_prob.detach() - old_log_prob).clamp(-20, 20).exp()
    given = {"grad_logprobs": -ratio.clamp(1 - low, 1 + high) * _weighted(advantages, rollout_is_weights)}
    loss, metrics = _loss("given", given, old_log_prob, log_prob, None, response_mask, loss_agg_mode, config, None)
    clipped = ((ratio < 1 - low) | (ratio > 1 + high)) & response_mask.bool()
    return loss, metrics | {"actor/pg_clipfrac": share(clipped.sum(), response_mask).item()}


def sapo(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="seq-mean-token-mean", config=None, rollout_is_weights=None):
    """The soft gate; aggregated as the mean over sequences of means over tokens whatever is asked for, as verl does."""
    settings = {"tau_pos": float(config.tau_pos), "tau_neg": float(config.tau_neg)}
    mode = "seq-mean-token-mean"
    return _loss("sapo", settings, old_log_prob, log_prob, advantages, response_mask, mode, config, rollout_is_weights)


def gpg(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="token-mean", config=None, rollout_is_weights=None):
    """The log-prob times the advantage, without a ratio."""
    return _loss("reinforce", {}, None, log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights)[0], {}


LOSSES = {"vanilla": vanilla, "cispo": cispo, "sapo": sapo, "gpg": gpg}


def register() -> None:
    """Makes fastgrpo_vanilla, fastgrpo_cispo, fastgrpo_sapo and fastgrpo_gpg loss modes of verl."""
    from verl.trainer.ppo.core_algos import register_policy_loss

    for name, loss in LOSSES.items():
        register_policy_loss(f"fastgrpo_{name}")(loss)


def _bounds(config) -> tuple[float, float]:
    low, high = (getattr(config, f"clip_ratio_{side}", None) for side in ("low", "high"))
    return (config.clip_ratio if bound is None else bound for bound in (low, high))


def _weighted(advantages: Tensor, weights: Tensor | None) -> Tensor:
    return advantages if weights is None else advantages * weights


def _loss(
    kind: str, settings: dict, old: Tensor | None, new: Tensor, advantages: Tensor | None, mask: Tensor, mode: str, config, weights
) -> tuple[Tensor, dict[str, Any]]:
    whole = config.global_batch_info  # of all micro-batches and ranks: gradients are averaged over dp_size ranks
    ranks, tokens, sequences = (whole.get(name) for name in ("dp_size", "batch_num_tokens", "global_batch_size"))
    scale = aggregation_scale(mask, mode, tokens, sequences, whole.get("loss_scale_factor")) * (ranks or 1)
    advantages = None if advantages is None else _weighted(advantages, weights)
    out = batch_policy_loss(new, mask, scale, advantages, kind=kind, old_logprobs=old, **settings)
    metrics = {
        "actor/pg_clipfrac": 0.0,  # of a loss without a clip, as in verl
        "actor/ppo_kl": share(out.stats["k1_sum"], mask).item(),
        "actor/pg_clipfrac_lower": 0.0,
    }
    return out.loss, metrics
