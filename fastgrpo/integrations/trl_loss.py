"""TRL's objective in one pass over the head: its loss types are scales per token and kinds of `fastgrpo_kernels`.

Letters: B sequences, K completion positions, m (B, K) the mask, |o| its sum over a sequence, N over the batch, a the accumulation steps.

    loss_type         kind     scale of a token                    loss_type   kind     scale
    grpo              clip     1 / (B |o| a)                       bnpo        clip     1 / (N a)
    sapo              sapo     1 / (B |o| a)                       dr_grpo     clip     1 / (B max_completion_length a)
    dapo, cispo       clip,    tokens of one accumulation over     luspo       clip     1 / (B a)
                      cispo    all ranks, times 1 / ranks

vLLM's importance ratios multiply the advantage: every kind is homogeneous in it for factors >= 0. TRL's entropy bonus is a mean over N
whatever the loss type: then that is the scale, and the advantage takes the quotient of the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastgrpo.integrations.trl_head import Scaling, head_inputs
from fastgrpo.integrations.trl_metrics import log_metrics
from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs

LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo")


@dataclass(frozen=True)
class Objective:
    """What the fused loss takes besides the head: advantages and scale (B, K), settings; entropy_coef is of this scale."""

    advantages: Tensor
    scale: Tensor
    entropy_coef: float
    settings: dict


def compute_loss(trainer, scaling: Scaling, model, inputs: dict) -> Tensor:
    """TRL's `_compute_loss`: the loss (), differentiable; metrics go where TRL puts them."""
    ids, attend = (torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"]], 1) for name in ("ids", "mask"))
    mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
    objective = objective_of(trainer, mask, inputs)

    def on_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        rows = hidden[:, -mask.shape[1] - 1 : -1].flatten(0, 1)
        head = head_inputs(trainer, rows, weight, bias)
        return fused_pass(head, inputs["completion_ids"].flatten(), mask.bool(), trainer.temperature, scaling, objective, inputs)

    with trainer.accelerator.autocast():
        loss, logprobs, entropies = model(input_ids=ids, attention_mask=attend, on_head=on_head)
    log_metrics(trainer, mask, inputs, loss, logprobs, entropies)
    return loss


def objective_of(trainer, mask: Tensor, inputs: dict) -> Objective:
    advantages = inputs["advantages"]
    advantages = advantages[:, None] if advantages.dim() == 1 else advantages
    if trainer.use_vllm and trainer.vllm_importance_sampling_correction:
        advantages = advantages * inputs["importance_sampling_ratio"]
    scale, coef = token_scale(trainer, mask, inputs).double(), trainer.entropy_coef
    if coef:
        of_mean = 1 / (mask.sum().clamp(min=1).double() * accumulation(trainer))
        advantages, scale = advantages * (scale / of_mean), of_mean
    advantages, scale = (value.expand(mask.shape) for value in (advantages, scale))
    return Objective(advantages, scale, coef, kind_settings(trainer))


def accumulation(trainer) -> float:
    """Micro-batches of an optimizer step, which TRL's loss divides by; evaluation has none."""
    return trainer.current_gradient_accumulation_steps if trainer.model.training else 1


def token_scale(trainer, mask: Tensor, inputs: dict) -> Tensor:
    """() or (B, 1): the factor of a token's loss, see the module."""
    sequences, steps = len(mask), accumulation(trainer)
    one = torch.ones((), dtype=torch.float64, device=mask.device)
    if trainer.loss_type in ("grpo", "sapo"):
        return one / (sequences * steps * mask.sum(1, keepdim=True).clamp(min=1))
    if trainer.loss_type == "bnpo":
        return one / (steps * mask.sum().clamp(min=1))
    if trainer.loss_type == "dr_grpo":
        return one / (steps * sequences * trainer.max_completion_length)
    if trainer.loss_type == "luspo":
        return one / (steps * sequences)
    tokens = inputs["num_items_in_batch"].clamp(min=1).double() / trainer.accelerator.num_processes  # of all that was generated at once
    return 1 / (tokens * (steps / trainer.args.steps_per_generation if trainer.model.training else 1))


def kind_settings(trainer) -> dict:
    args, settings = trainer.args, {"beta": trainer.beta}
    if trainer.loss_type == "cispo":
        return settings | {"kind": "cispo", "clip_high": trainer.epsilon_high - 1}  # TRL names the bound itself, we what is above 1
    if trainer.loss_type == "sapo":
        return settings | {"kind": "sapo", "tau_pos": args.sapo_temperature_pos, "tau_neg": args.sapo_temperature_neg}
    return settings | {"kind": "clip", "clip_low": trainer.epsilon_low, "clip_high": trainer.epsilon_high, "delta": args.delta}


def fused_pass(
    head: tuple, targets: Tensor, mask: Tensor, temperature: float, scaling: Scaling, objective: Objective, inputs: dict
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (), log-probs, entropies (B, K) for the metrics, detached): rows of zero advantage get their own cheaper pass."""
    hidden, weight, bias = head
    numbers = {"bias": bias, "logit_scale": scaling.logit_scale, "softcap": scaling.softcap}

    def flat(name: str) -> Tensor | None:
        return inputs[name].flatten().float() if inputs.get(name) is not None else None

    out = fused_linear_policy_loss(
        hidden,
        weight,
        targets,
        temperature=temperature,
        advantages=objective.advantages.flatten().float(),
        scale=objective.scale.flatten(),
        loss_mask=mask.flatten(),
        old_logprobs=flat("old_per_token_logps"),
        ref_logprobs=flat("ref_per_token_logps"),
        entropy_coef=objective.entropy_coef,
        **objective.settings,
        **numbers,
    )
    logprobs, entropies = out.logprobs.clone(), out.entropy.clone()
    if not (objective.settings["beta"] or objective.entropy_coef):
        silent = (mask & (objective.advantages == 0)).flatten()
        with torch.no_grad():
            found = linear_logprobs(hidden[silent], weight, targets[silent], temperature, **numbers)
        logprobs[silent], entropies[silent] = found
    return out.loss, logprobs.view(mask.shape), entropies.view(mask.shape)
