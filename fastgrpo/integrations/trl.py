"""TRL's GRPOTrainer with the fused head and loss, by one line; sampling, rewards, metrics and checkpoints stay TRL's:

    trainer = use_fused_loss(GRPOTrainer(model=..., reward_funcs=..., args=..., train_dataset=...))
    trainer.train()

What surprises: nothing is subclassed. The two methods of TRL that touch the head are replaced on this one trainer, and the head runs
inside the model's own forward, where DDP, FSDP and DeepSpeed have its weight whole and watch for gradients. TRL's methods are private,
so the version is checked. A ratio of whole sequences, and TRL's bias-corrected KL, can't be had in one pass over the head: then TRL's
own loss is computed on our log-probs, which takes one more product a tile, and a logged line says so.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastgrpo.errors import InputError, SetupError
from fastgrpo.integrations.trl_head import add_head_pass, logprobs_and_entropies, scaling_of
from fastgrpo.integrations.trl_loss import LOSS_TYPES, compute_loss

if TYPE_CHECKING:
    from trl import GRPOTrainer

VERSION = "1.16"  # of trl: its private methods were read there
OWN_LOSS = "; use_fused_loss(trainer, loss='trl') keeps TRL's loss, on fused log-probs"


def use_fused_loss(trainer: GRPOTrainer, loss: str = "fused") -> GRPOTrainer:
    """The same trainer, changed: call it once, after construction and before train().

    loss "fused": log-probs, loss and its gradients from `fastgrpo_kernels`, the gradients in the forward pass. loss "trl": log-probs
    and entropies alone, old and reference passes too; TRL computes any loss it knows from them.
    Raises InputError for a trainer or a setting that the asked-for way does not compute, SetupError for another version of TRL.
    """
    _require_version()
    if loss not in ("fused", "trl"):
        raise InputError(f"loss={loss!r} is unknown: fused (TRL's objective in one pass) or trl (TRL's own loss on fused log-probs)")
    require_grpo_trainer(trainer)
    require_plain_model(trainer)
    second_pass = needs_second_pass(trainer) if loss == "fused" else "loss='trl'"
    if second_pass:
        require_whole_weights(trainer, second_pass)
    if loss == "fused":
        require_known_objective(trainer)
        if second_pass:
            logging.getLogger(__name__).warning("%s: TRL's own loss, on fused log-probs, in two passes over the head", second_pass)
    for model in filter(None, (trainer.model, trainer.ref_model)):
        add_head_pass(plain_model(trainer, model))
    scaling = scaling_of(trainer.model.config)
    trainer._get_per_token_logps_and_entropies = lambda *args, **inputs: logprobs_and_entropies(trainer, scaling, *args, **inputs)
    if not second_pass:
        trainer._compute_loss = lambda model, inputs: compute_loss(trainer, scaling, model, inputs)
    return trainer


def needs_second_pass(trainer: GRPOTrainer) -> str:
    """The setting whose terms depend on log-probs of other tokens, or multiply KL and ratio; empty where there is none."""
    if trainer.importance_sampling_level == "sequence":
        return "importance_sampling_level='sequence'"
    return "use_bias_correction_kl=True" if trainer.beta and trainer.args.use_bias_correction_kl else ""


def plain_model(trainer: GRPOTrainer, model):
    """The causal LM itself below wrappers and adapters."""
    model = trainer.accelerator.unwrap_model(model)
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _require_version() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("trl")
    except PackageNotFoundError:
        raise SetupError(f'trl is not installed: pip install "trl=={VERSION}.*"') from None
    if not found.startswith(f"{VERSION}."):
        raise SetupError(f'trl {found} is installed, this was made for {VERSION}: pip install "trl=={VERSION}.*"')


def require_grpo_trainer(trainer: GRPOTrainer) -> None:
    from trl import GRPOTrainer

    if not isinstance(trainer, GRPOTrainer):
        raise InputError(f"use_fused_loss takes a trl.GRPOTrainer, got {type(trainer).__name__}")
    for name in ("_compute_loss", "_get_per_token_logps_and_entropies"):
        if name in vars(trainer):
            raise InputError("the trainer has the fused loss already: call use_fused_loss once")
        if getattr(type(trainer), name) is not getattr(GRPOTrainer, name):
            raise InputError(f"{type(trainer).__name__} has a {name} of its own, which would be lost: give a trainer with TRL's")


def require_plain_model(trainer: GRPOTrainer) -> None:
    """A text model whose head is one matrix that the adapters leave alone."""
    from torch import nn

    if trainer._is_vlm:
        raise InputError("a model with images has inputs that the fused head does not pass on: give a text model and its tokenizer")
    if trainer.aux_loss_enabled:
        raise InputError("the load-balancing loss of experts is not computed: set router_aux_loss_coef=0.0")
    if trainer.args.use_liger_kernel:
        raise InputError("use_liger_kernel=True replaces functions of the model: set use_liger_kernel=False")
    if any(config.is_prompt_learning for config in getattr(trainer.model, "peft_config", {}).values()):
        raise InputError("prompt tuning puts tokens before the prompt, which the fused head does not know: use LoRA, or all weights")
    head = trainer.model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        raise InputError(f"the model's head is a {type(head).__name__}, the fused loss needs a plain nn.Linear: not quantized, no adapter")


def require_whole_weights(trainer: GRPOTrainer, setting: str) -> None:
    """A second pass over the head reads its weight in backward, when ZeRO 3 has taken it apart again."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():
        raise InputError(f"{setting} takes two passes over the head, which ZeRO 3 does not give: use ZeRO 2, or change the setting")


def require_known_objective(trainer: GRPOTrainer) -> None:
    """Raises InputError for what TRL would compute and one pass over the head does not."""
    args, low, high = trainer.args, trainer.epsilon_low, trainer.epsilon_high
    if trainer.loss_type not in LOSS_TYPES:
        raise InputError(f"loss_type={trainer.loss_type!r} is not computed: {', '.join(LOSS_TYPES)} are" + OWN_LOSS)
    for name, off in (("top_entropy_quantile", 1.0), ("off_policy_mask_threshold", None), ("use_adaptive_entropy", False)):
        if getattr(args, name) != off:
            raise InputError(f"{name}={getattr(args, name)} is not computed: leave it at {off}" + OWN_LOSS)
    if trainer.beta and args.entropy_coef and not needs_second_pass(trainer):
        raise InputError(f"beta={trainer.beta} and entropy_coef={args.entropy_coef} have different divisors: set one to 0" + OWN_LOSS)
    if trainer.loss_type == "cispo" and high < 1:
        raise InputError(f"epsilon_high={high} would cap every ratio of cispo below 1: set it to 1 or more (5.0 is usual)" + OWN_LOSS)
    if trainer.loss_type not in ("cispo", "sapo"):
        if not 0 <= low <= 1:
            raise InputError(f"epsilon={low} must lie in [0, 1]" + OWN_LOSS)
        if args.delta is not None and not args.delta > 1 + high:
            raise InputError(f"delta={args.delta} must exceed 1 + epsilon_high = {1 + high}" + OWN_LOSS)
