"""Seconds to learn from the kept responses of a step: FLOPs of body, head and attention, then what moves between GPUs and to the host.

N parameters of the body cost 2 N FLOPs a token forwards and 4 N backwards; causal attention over s tokens 2 s^2 times the width of the
queries in each layer forwards, and twice that backwards; the fused loss 6 H V a response token, its log-probs alone 2 H V. Weights that
LoRA freezes cost 2 N backwards, and the head 4 H V; adapters themselves are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastgrpo.config import Config
from fastgrpo.plan.adapters import trained_parameters
from fastgrpo.plan.algebra import Batch
from fastgrpo.plan.generation import peak_flops
from fastgrpo.plan.memory import DTYPE_BYTES
from fastgrpo.plan.shapes import Shape


def forward_flops(shape: Shape, batch: Batch) -> float:
    """One forward pass of the body over all kept sequences of a step."""
    return 2 * shape.body_parameters * batch.kept_tokens + 2 * batch.kept_squares * shape.queries * shape.layers


def head_flops(shape: Shape, batch: Batch) -> float:
    """One product of all kept response tokens with the head."""
    return 2 * shape.head_parameters * batch.kept_response_tokens


def update_seconds(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> float:
    """Forward, backward and, with recompute, the forward pass of the layers again."""
    frozen = config.learner.lora_rank > 0
    weight_gradients = 2 * shape.body_parameters * batch.kept_tokens if frozen else 0
    body = forward_flops(shape, batch) * (4 if config.learner.recompute else 3) - weight_gradients
    return _computed(body, (2 if frozen else 3) * head_flops(shape, batch), config, batch, assume)


def old_logprob_seconds(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> float:
    """A forward pass of every update but the first, whose ratio is 1; none where the sampler's log-probs are taken."""
    share = 0.0 if config.old_logprobs == "sampler" else (batch.updates - 1) / batch.updates
    return share * _computed(forward_flops(shape, batch), head_flops(shape, batch), config, batch, assume)


def reference_seconds(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> float:
    """A forward pass of the reference model over everything, where there is a KL term."""
    share = 1.0 if config.loss.beta > 0 else 0.0
    return share * _computed(forward_flops(shape, batch), head_flops(shape, batch), config, batch, assume)


def communication_seconds(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> float:
    """Gradients and weights between GPUs, not overlapped: per pack from ZeRO 2 on, once per update below; ZeRO 3 gathers weights for each
    forward and backward pass."""
    if batch.gpus == 1:
        return 0.0
    b, zero = DTYPE_BYTES[config.dtype], config.learner.zero if config.learner.engine == "deepspeed" else 0
    ring = (batch.gpus - 1) / batch.gpus
    packs = batch.updates * batch.packs
    reduced = 4 * trained_parameters(shape, config) * ring * (packs if zero >= 2 else batch.updates)  # float32
    gathered = b * shape.parameters * ring
    if zero == 0:
        moved = 2 * reduced  # an all-reduce is a reduce-scatter and a gather
    elif zero == 3:
        passes = 3 if config.learner.recompute else 2
        moved = reduced + gathered * (passes * packs + (batch.updates - 1) * batch.packs)
    else:
        moved = reduced + b * trained_parameters(shape, config) * ring * batch.updates
    return moved / (assume["link"] * assume["link_share"] * 1e9)


def optimizer_seconds(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> float:
    """AdamW reads and writes masters, moments and gradients, 32 bytes a parameter, on the GPU or, offloaded, on the host; there gradients
    and weights pass the host's link."""
    learner = config.learner
    spread = batch.gpus if learner.engine == "deepspeed" and learner.zero >= 1 else 1
    mine = trained_parameters(shape, config) / spread * batch.updates
    if learner.engine == "native" or learner.offload == "none":
        return 32 * mine / (assume["bandwidth"] * assume["bandwidth_share"] * 1e9)
    return 32 * mine / (assume["host_bandwidth"] * 1e9) + (4 + DTYPE_BYTES[config.dtype]) * mine / (assume["host_link"] * 1e9)


def _computed(body: float, head: float, config: Config, batch: Batch, assume: Mapping[str, float]) -> float:
    """Seconds of so many FLOPs, spread over all GPUs, on the slowest of them."""
    peak = peak_flops(config.dtype, assume) * batch.gpus
    return (body / (peak * assume["mfu"]) + head / (peak * assume["mfu_head"])) * (assume["imbalance"] if batch.gpus > 1 else 1.0)
