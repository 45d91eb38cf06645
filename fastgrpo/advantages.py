"""Rewards of one group into advantages: the group's mean subtracted, and for GRPO divided by its spread (arXiv:2503.20783, Eq. 1 and 3)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fastgrpo.types import Grade, Rollout

# DAPO (arXiv:2503.14476, Eq. 13) punishes the last 4,096 of 20,480 tokens: the same share of any budget.
SOFT_WINDOW = 0.2


def group_rewards(grades: Sequence[Grade], rollouts: Sequence[Rollout], truncation: str, max_new_tokens: int) -> tuple[float | None, ...]:
    """Rewards after the rule for truncated responses; None for an unscorable response stays None, but for one case.

    zero_reward: a truncated response gets 0 whatever its text says, and so also where no reward could be had for it. mask, keep: the
    grade stands (mask drops it from the loss, elsewhere). soft: the grade, less up to 1 that grows linearly over the last fifth of
    the budget.
    """
    return tuple(_reward(grade.reward, rollout, truncation, max_new_tokens) for grade, rollout in zip(grades, rollouts, strict=True))


def _reward(reward: float | None, rollout: Rollout, truncation: str, max_new_tokens: int) -> float | None:
    if truncation == "zero_reward" and rollout.truncated:
        return 0.0
    if truncation == "soft" and reward is not None:
        return reward - overlong_penalty(len(rollout.token_ids), max_new_tokens)
    return reward


def overlong_penalty(length: int, max_new_tokens: int) -> float:
    """0 up to four fifths of the budget, then linear, 1 at the full budget (lengths in tokens)."""
    window = SOFT_WINDOW * max_new_tokens
    return min(1.0, max(0.0, (length - (max_new_tokens - window)) / window))


def group_advantages(rewards: Sequence[float | None], loss_type: str) -> tuple[float, ...]:
    """R - mean(R); for grpo and grpo_no_length divided by std + 1e-8, std unbiased. Equal rewards give exactly 0.

    The mean includes the response itself. Unscorable responses (None) are left out of mean and std, and their advantage is exactly 0;
    with fewer than two others, so is everyone's.
    """
    scored = [reward for reward in rewards if reward is not None]
    if len(scored) < 2 or min(scored) == max(scored):
        return (0.0,) * len(rewards)
    mean = statistics.fmean(scored)
    spread = statistics.stdev(scored) + 1e-8 if loss_type in ("grpo", "grpo_no_length") else 1.0
    return tuple(0.0 if reward is None else (reward - mean) / spread for reward in rewards)
