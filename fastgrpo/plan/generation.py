"""Seconds to sample responses: each decode step reads the weights and the cache of all live responses; the batch shrinks as they end.

What would surprise: a step's time hardly depends on how many decode, so the longest response rules, and more GPUs help little here.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence

from fastgrpo.config import Config
from fastgrpo.plan.assumptions import GIB
from fastgrpo.plan.memory import DTYPE_BYTES, cache_bytes_per_token
from fastgrpo.plan.shapes import Shape


def generation_seconds(
    shape: Shape, config: Config, engines: int, prompts: int, prompt_tokens: float, lengths: Sequence[int], assume: Mapping[str, float]
) -> float:
    """Seconds until the last of `lengths` (tokens) has ended, over `engines` alike; each of `prompts` is read once."""
    mine = sorted(lengths, reverse=True)[::engines]  # the slowest engine has the longest response
    random.Random(0).shuffle(mine)
    tensor_parallel = config.rollout.tensor_parallel if config.rollout.engine == "vllm" else 1
    flops = peak_flops(config.dtype, assume) * assume["mfu_prefill"] * tensor_parallel
    prefill = 2 * shape.body_parameters * prompt_tokens * prompts / engines / flops
    slots = concurrency(shape, config, prompt_tokens, mine)
    return prefill + sum(
        steps * _step_seconds(shape, config, alive, tokens, flops, tensor_parallel, assume)
        for steps, alive, tokens in decode_steps(mine, prompt_tokens, slots)
    )


def concurrency(shape: Shape, config: Config, prompt_tokens: float, lengths: Sequence[int]) -> int:
    """Responses decoded at once: by rollout.sequences, and by how many of average length the KV cache holds."""
    if config.rollout.engine == "native":
        return 1024
    token = cache_bytes_per_token(shape, DTYPE_BYTES[config.dtype]) / config.rollout.tensor_parallel
    held = config.rollout.cache_gib * GIB / token / (prompt_tokens + sum(lengths) / len(lengths))
    return max(1, min(config.rollout.sequences, int(held)))


def decode_steps(lengths: Sequence[int], prompt_tokens: float, slots: int) -> list[tuple[int, int, float]]:
    """(decode steps, live responses, tokens in their caches on average) of each stretch in which nothing ends; others wait for slots."""
    waiting = list(reversed(lengths))
    live: list[int] = []  # at which step each ends
    now, cached, stretches = 0, 0.0, []
    while waiting or live:
        while waiting and len(live) < slots:
            heapq.heappush(live, now + waiting.pop())
            cached += prompt_tokens
        steps = live[0] - now
        if steps:
            stretches.append((steps, len(live), cached + len(live) * steps / 2))
        cached += len(live) * steps
        ended, now = len(live), live[0]
        while live and live[0] == now:
            heapq.heappop(live)
        cached *= len(live) / ended  # those that end are taken to hold as much as the others
    return stretches


def _step_seconds(
    shape: Shape, config: Config, alive: int, tokens: float, flops: float, tensor_parallel: int, assume: Mapping[str, float]
) -> float:
    """One decode step of one engine: bound by memory or by arithmetic, then sampling, then what the host needs."""
    b = DTYPE_BYTES[config.dtype]
    bandwidth = assume["bandwidth"] * 1e9 * assume["bandwidth_share"]
    read = b * (shape.body_parameters + shape.head_parameters) + tokens * cache_bytes_per_token(shape, b)
    arithmetic = 2 * alive * (shape.body_parameters + shape.head_parameters) + 4 * tokens * shape.layers * shape.queries
    sampling = alive * shape.vocabulary * assume["sampler_bytes"]
    moved = max(read / bandwidth / tensor_parallel, arithmetic / flops)
    return moved + sampling / bandwidth + assume[f"step_overhead_{config.rollout.engine}"]


def peak_flops(dtype: str, assume: Mapping[str, float]) -> float:
    """FLOP/s at the peak; float64 is taken to run at half of float32."""
    return 1e12 * {"bfloat16": assume["tflops"], "float32": assume["tflops_fp32"], "float64": assume["tflops_fp32"] / 2}[dtype]
