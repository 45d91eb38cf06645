"""What lies in one GPU's memory at each moment of a step, in bytes.

Moments: `generate`; `hand over`, when the engine takes the new weights; and of learning `forward`, when the fused loss runs, `backward`,
a bound from above since activations leave there while gradients come, and `update`. Masters, moments of Adam and accumulated gradients
are float32. The native learner keeps all on every GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastgrpo.config import Config
from fastgrpo.plan.activations import backward_bytes, cast_bytes, kept_bytes, layer_bytes, loss_gradient_bytes, loss_workspace_bytes
from fastgrpo.plan.adapters import adapter_bytes, trained_parameters
from fastgrpo.plan.algebra import Batch
from fastgrpo.plan.assumptions import GIB
from fastgrpo.plan.shapes import Shape

MOMENTS = ("generate", "hand over", "forward", "backward", "update")
LEARNING = MOMENTS[2:]
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes on one GPU by moment; moments that are not named have none."""

    name: str
    bytes: Mapping[str, float]


def always(name: str, size: float) -> Row:
    return Row(name, dict.fromkeys(MOMENTS, size))


def shares_weights(config: Config) -> bool:
    """Whether the engine reads the learner's own weights: none does where ZeRO 3 spreads them, and vllm not in parts or by pushes."""
    whole = config.learner.engine == "native" or config.learner.zero <= 2
    if config.rollout.engine == "native":
        return whole
    return whole and config.rollout.weights != "push" and config.rollout.tensor_parallel == 1 and not config.learner.lora_rank


def memory(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> list[Row]:
    """All rows; the sum over rows is what a GPU needs at a moment."""
    state = _native(shape, config) if config.learner.engine == "native" else _deepspeed(shape, config, batch.gpus, assume)
    rows = [*state, *_pass(shape, config, batch), *_rollouts(shape, config, batch, assume)]
    if config.loss.beta > 0 and (not config.learner.lora_rank or config.learner.spreads_weights):
        rows.append(always("reference model", DTYPE_BYTES[config.dtype] * shape.parameters))
    rows.append(always("CUDA context and NCCL", assume["context"] * GIB))
    rows.append(always("reserve against fragmentation", assume["fragmentation"] * assume["memory"] * GIB))
    return [row for row in rows if any(row.bytes.values())]


def total(rows: list[Row]) -> dict[str, float]:
    """Bytes of all rows by moment."""
    return {moment: sum(row.bytes.get(moment, 0.0) for row in rows) for moment in MOMENTS}


def host_bytes(shape: Shape, config: Config) -> float:
    """What offloading puts into host memory, over all ranks: masters, moments and accumulated gradients, and with `all` the weights."""
    if config.learner.engine == "native" or config.learner.offload == "none":
        return 0.0
    weights = DTYPE_BYTES[config.dtype] if config.learner.offload == "all" and config.learner.zero == 3 else 0
    return (4 + 8 + 4) * trained_parameters(shape, config) + weights * shape.parameters


def _native(shape: Shape, config: Config) -> list[Row]:
    """Weights of at least float32 are their own masters. Each update copies all gradients, clipped, and AdamW takes as much again."""
    b, P = DTYPE_BYTES[config.dtype], trained_parameters(shape, config)
    master = max(b, 4)
    return [
        *_weights(shape, config, b),
        always("fp32 masters", 0 if b >= 4 else 4 * P),
        always("Adam moments", 2 * master * P),
        always("gradients, accumulated", master * P),
        Row("gradients of a pack", {"backward": b * P}),
        Row("clipped copies, AdamW's own", {"update": 2 * master * P}),
    ]


def _deepspeed(shape: Shape, config: Config, gpus: int, assume: Mapping[str, float]) -> list[Row]:
    """ZeRO 1 spreads masters and moments over ranks, 2 accumulated gradients as well, 3 weights too: these are gathered while in use.

    What outlives an update was measured, on two ranks in bfloat16: ZeRO 1 and 3 keep accumulated gradients, ZeRO 3 its bucket too, ZeRO 2
    nothing; there a rank lets others' gradients go as they are reduced. ZeRO 3 also copies its part of the gradients for the update.
    """
    b, P, zero = DTYPE_BYTES[config.dtype], trained_parameters(shape, config), config.learner.zero
    on_gpu = config.learner.offload == "none"
    optimizer_part = (P / gpus if zero >= 1 else P) * on_gpu
    gradient_part = (P / gpus if zero >= 2 else P) * on_gpu
    return [
        *_weights(shape, config, b if zero < 3 else 0 if config.learner.offload == "all" else b / gpus),
        Row("weights of others, gathered", _gathered(b, shape.parameters, assume) if zero == 3 else {}),
        always("fp32 masters", 4 * optimizer_part),
        always("Adam moments", 8 * optimizer_part),
        Row("gradients, accumulated", dict.fromkeys(LEARNING if zero == 2 else MOMENTS, 4 * gradient_part)),
        Row("gradients of a pack", {2: {"backward": b * P / gpus}, 3: {}}.get(zero, dict.fromkeys(("backward", "update"), b * P))),
        Row("buckets of gradients", {2: {"backward": 8 * min(assume["reduce_bucket"], P)}}.get(zero, {})),
        always("bucket of gradients, fixed", 4 * assume["reduce_bucket"] if zero == 3 else 0),
        Row("AdamW's own", {"update": (8 if zero == 3 else 4) * optimizer_part}),
    ]


def _weights(shape: Shape, config: Config, size: float) -> list[Row]:
    """Those of the model, `size` bytes each on a GPU, and with LoRA the adapters beside them."""
    adapters = trained_parameters(shape, config) if config.learner.lora_rank else 0
    return [always("weights", size * shape.parameters), always("adapters", size * adapters)]


def _gathered(b: int, P: int, assume: Mapping[str, float]) -> dict[str, float]:
    """Weights of other ranks under ZeRO 3, in every pass, some of them twice as they arrive, and on the way to the engine."""
    live = b * (min(assume["live_parameters"], P) + min(assume["prefetch_bucket"], P))
    return {"hand over": b * min(assume["push_bucket"], P), "forward": live, "backward": live}


def _pass(shape: Shape, config: Config, batch: Batch) -> list[Row]:
    """One pack of tokens_per_pack, or of one sequence as long as allowed where that is more."""
    b, recompute = DTYPE_BYTES[config.dtype], config.learner.recompute
    T = max(config.tokens_per_pack, config.max_prompt_tokens + config.max_new_tokens)
    M = T * batch.kept_response_tokens / batch.kept_tokens if batch.kept_tokens else 0
    head = 0 if config.learner.lora_rank else shape.head_parameters  # that get a gradient
    layer = layer_bytes(shape, b, T) + adapter_bytes(shape, config, b, T)
    kept, made = kept_bytes(shape, b, T, layer, recompute), loss_gradient_bytes(shape, M, head)
    cast = cast_bytes(shape, b, T, M, head)
    return [
        Row("activations of a pack", {"forward": kept, "backward": kept}),
        Row("fused loss: dX, dW", {"forward": made, "backward": b * head}),
        Row("fused loss: workspace", {"forward": max(loss_workspace_bytes(shape, b, M), cast)}),
        Row("one layer's backward", {"backward": backward_bytes(shape, b, T, layer, recompute)}),
    ]


def _rollouts(shape: Shape, config: Config, batch: Batch, assume: Mapping[str, float]) -> list[Row]:
    b, head = DTYPE_BYTES[config.dtype], shape.head_parameters
    copy = 0 if shares_weights(config) else b * shape.parameters
    if config.rollout.engine == "native":
        return [
            always("engine's copy of the weights", copy),
            Row("KV cache", {"generate": native_cache_bytes(shape, b, batch)}),
            Row("engine's float32 head", {"generate": 4 * head if b == 2 else 0}),
        ]
    part = copy / config.rollout.tensor_parallel
    sampling = 4 * min(config.rollout.sequences, batch.responses) * shape.vocabulary + 8 * 2**27
    return [
        Row("engine's copy of the weights", {"generate": part, "hand over": part}),
        Row("KV cache", {"generate": config.rollout.cache_gib * GIB}),
        Row("logits and sampling", {"generate": sampling}),
        always("vLLM beside weights and cache", assume["vllm"] * GIB),
    ]


def cache_bytes_per_token(shape: Shape, b: int) -> int:
    """Keys and values of one token in all layers."""
    return 2 * b * shape.layers * shape.keys


def native_cache_bytes(shape: Shape, b: int, batch: Batch) -> float:
    """Peak of the native engine's cache: 1,024 responses at once at most, all as wide as the longest, ended ones leave in fifths."""
    rows = sorted(batch.lengths)[:: batch.gpus]
    alive = min(len(rows), 1024)
    widest = max(min(alive, (len(rows) - i) / 0.8) * (batch.prompt_tokens + length) for i, length in enumerate(rows))
    return widest * cache_bytes_per_token(shape, b)
