"""The head of a Hugging Face model inside its forward: what runs there is handed in, and gets hidden states, weight and bias.

Shapes: B sequences, P prompt and K completion positions, V vocabulary, H hidden width. hidden (B, P + K, H); the completion's tokens are
input_ids[:, -K:], predicted by hidden[:, -K - 1 : -1]. Scored are the completion's tokens in the attention mask, as in TRL.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgrpo_kernels import linear_logprobs


@dataclass(frozen=True)
class Scaling:
    """What a model does to its logits before the softmax: see `fastgrpo_kernels.linear_logprobs`."""

    logit_scale: float
    softcap: float | None


def scaling_of(config) -> Scaling:
    """From the names that architectures give them; logits_scaling divides, but for HyperCLOVA X, where it multiplies."""
    text = config.get_text_config()
    scale = next(
        (value for name in ("logit_scale", "output_multiplier", "lm_head_multiplier") if (value := getattr(text, name, None))), 1.0
    )
    divisor = getattr(text, "logits_scaling", None)
    if scale == 1.0 and divisor is not None:
        scale = divisor if text.model_type == "hyperclovax" else 1 / divisor
    return Scaling(float(scale), getattr(text, "final_logit_softcapping", None))


def add_head_pass(model) -> None:
    """Lets model(..., on_head=f) run the body and return f(hidden, weight, bias), from within forward; other calls are as before."""
    before = model.forward

    @functools.wraps(type(model).forward)
    def forward(self, *args, on_head: Callable | None = None, **inputs):
        from trl.trainer.utils import maybe_gather_lm_head_ctx

        if on_head is None:
            return before(*args, **inputs)
        hidden = self.base_model(*args, use_cache=False, **inputs).last_hidden_state
        head = self.get_output_embeddings()
        weight, bias = (_whole(tensor) for tensor in (head.weight, head.bias))
        with maybe_gather_lm_head_ctx(weight, bias):
            return on_head(hidden.to(weight.device), weight, bias)

    model.forward = types.MethodType(forward, model)


def _whole(parameter: Tensor | None) -> Tensor | None:
    """FSDP 2 leaves shards as DTensors beside hidden states that are none."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def head_inputs(trainer, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """All three in the dtype of the products: autocast's where it is on, as in TRL, else the weight's."""
    dtype, device = weight.dtype, hidden.device.type
    if torch.is_autocast_enabled(device) and not trainer.args.cast_lm_head_to_fp32:
        dtype = torch.get_autocast_dtype(device)
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def logprobs_and_entropies(
    trainer,
    scaling: Scaling,
    model,
    input_ids: Tensor,
    attention_mask: Tensor,
    logits_to_keep: int,
    batch_size: int | None = None,
    compute_entropy: bool = False,
    **_: None,  # images and experts, which were refused at the door
) -> tuple[Tensor, Tensor | None, None]:
    """TRL's method of this name: log-probs and entropies (B, K), 0 where not scored, differentiable; batch_size sequences at a time."""
    targets, scored = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:].bool()
    step = batch_size or len(input_ids)
    found = []
    for part in (slice(start, start + step) for start in range(0, len(input_ids), step)):

        def on_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, part: slice = part) -> tuple[Tensor, Tensor]:
            hidden, weight, bias = head_inputs(trainer, hidden, weight, bias)
            rows = hidden[:, -logits_to_keep - 1 : -1][scored[part]]
            settings = {"bias": bias, "logit_scale": scaling.logit_scale, "softcap": scaling.softcap}
            return linear_logprobs(rows, weight, targets[part][scored[part]], trainer.temperature, **settings)

        with trainer.accelerator.autocast():
            values = model(input_ids=input_ids[part], attention_mask=attention_mask[part], on_head=on_head)
        found.append([column.new_zeros(scored[part].shape).masked_scatter(scored[part], column) for column in values])
    logprobs, entropies = (torch.cat(columns) for columns in zip(*found, strict=True))
    return logprobs, entropies if compute_entropy else None, None
