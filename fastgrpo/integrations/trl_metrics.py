"""The metrics of TRL's loss, under its names, from log-probs and entropies (B, K) that the fused pass left behind."""

from __future__ import annotations

import torch
from torch import Tensor


def log_metrics(trainer, mask: Tensor, inputs: dict, loss: Tensor, logprobs: Tensor, entropies: Tensor) -> None:
    """Appends to trainer's metrics: entropy; kl with beta; clip ratios, or cispo's; policy_loss and entropy_coef with an entropy bonus."""
    mode = "train" if trainer.model.training else "eval"
    advantages, old = inputs["advantages"], inputs.get("old_per_token_logps")
    advantages = advantages[:, None] if advantages.dim() == 1 else advantages
    ratio = torch.ones_like(logprobs) if old is None else (logprobs - old).exp()
    per_token = {"entropy": entropies}
    if trainer.beta:
        gap = inputs["ref_per_token_logps"] - logprobs
        per_token["kl"] = gap.exp() - gap - 1
    low = high = None
    if trainer.loss_type == "cispo":
        per_token["cispo_clip_ratio"] = (ratio > trainer.epsilon_high) & (advantages > 0)
    elif trainer.loss_type != "sapo":
        low = (ratio < 1 - trainer.epsilon_low) & (advantages < 0)
        high = (ratio > 1 + trainer.epsilon_high) & (advantages > 0)
        per_token |= {f"clip_ratio/{name}_mean": where for name, where in (("low", low), ("high", high), ("region", low | high))}
    found = means(trainer, mask, per_token)
    if low is not None:
        found |= extremes(trainer, mask, low, high)
    if trainer.entropy_coef:
        found |= of_entropy_bonus(trainer, mode, mask, loss, entropies)
    for name, value in found.items():
        trainer._metrics[mode][name].append(value)


def means(trainer, mask: Tensor, per_token: dict[str, Tensor]) -> dict[str, float]:
    """Over all tokens in the masks of all ranks; one reduction for all of them."""
    sums = [torch.where(mask.bool(), values, 0).sum().float() for values in per_token.values()]
    totals = trainer.accelerator.reduce(torch.stack([*sums, mask.sum().float()]), reduction="sum")
    return dict(zip(per_token, (totals[:-1] / totals[-1].clamp(min=1)).tolist(), strict=True))


def extremes(trainer, mask: Tensor, low: Tensor, high: Tensor) -> dict[str, float]:
    """The least and the largest share of clipped tokens of a sequence, of all ranks; sequences without tokens count for nothing."""
    from trl.trainer.utils import nanmax, nanmin

    low, high = trainer.accelerator.gather(torch.stack([(where * mask).sum(1) / mask.sum(1) for where in (low, high)], 1)).unbind(1)
    return {"clip_ratio/low_min": nanmin(low).item(), "clip_ratio/high_max": nanmax(high).item()}


def of_entropy_bonus(trainer, mode: str, mask: Tensor, loss: Tensor, entropies: Tensor) -> dict[str, float]:
    """The loss without the bonus, before TRL's division by accumulation steps where it divides, and the coefficient of a whole step."""
    steps = trainer.current_gradient_accumulation_steps if mode == "train" else 1
    bonus = trainer.entropy_coef * (entropies * mask).sum() / mask.sum().clamp(min=1) / steps
    policy = (loss.detach() + bonus) * (1 if trainer.loss_type in ("dapo", "cispo") else steps)
    found = {"policy_loss": trainer.accelerator.gather(policy).nanmean().item()}
    if mode == "train" and trainer.accelerator.sync_gradients:
        found["entropy_coef"] = trainer.entropy_coef
    return found
