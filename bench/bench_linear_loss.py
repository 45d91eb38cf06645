"""Forward and backward from hidden states to a loss: ours, every rival that is installed, and the bare matrix products as roofline.

A group per operation and shape. Beside the time: tokens/s, TFLOP/s counted as 6 M H V whatever a contestant recomputes, peak memory,
and the errors of both gradients against float64, without which speed does not count. On a CPU the shapes are small and the times are no
results: `note` says so.
"""

from __future__ import annotations

import pytest
import torch
from contestants import CONTESTANTS
from measure import flush_caches, peak_extra_mib, synchronize, threshold
from problem import Shape, make_problem, truth

GPU = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)
QWEN, LLAMA = 151_936, 128_256
SHAPES = (
    [
        Shape(32_768, 1536, QWEN, length=1024),
        Shape(32_768, 2048, QWEN, length=1024),
        Shape(32_768, 3584, QWEN, length=1024),
        Shape(8192, 4096, QWEN, length=1024),
        Shape(16_384, 4096, LLAMA, length=1024),
        Shape(32_768, 2048, QWEN, silent=0.4, length=1024),
    ]
    if GPU
    else [Shape(512, 64, 4000), Shape(512, 64, 4000, silent=0.4)]
)
CASES = [
    pytest.param(
        *(operation, name, shape),
        id=f"{operation}-{name}-{shape}",
        marks=pytest.mark.benchmark(group=f"{operation}, {shape}, {DTYPE}"),
    )
    for operation, contestants in CONTESTANTS.items()
    for shape in SHAPES
    for name in contestants
]


@pytest.mark.parametrize(("operation", "name", "shape"), CASES)
def test_forward_and_backward(benchmark, operation, name, shape):
    problem = make_problem(shape, DEVICE, DTYPE)
    contestant = CONTESTANTS[operation][name]
    problem.clear()
    try:
        contestant(problem)
    except (ImportError, torch.OutOfMemoryError) as reason:
        pytest.skip(f"{name}: {str(reason).splitlines()[0]}")
    info = benchmark.extra_info
    info["note"] = f"{torch.cuda.get_device_name()}, torch {torch.__version__}" if GPU else "CPU smoke shape: no result"
    if problem.hidden.grad is not None:
        wants = truth(problem, operation)
        for label, got, want in zip(("rel dX", "rel dW"), (problem.hidden.grad, problem.weight.grad), wants, strict=True):
            info[label] = ((got.double() - want).norm() / want.norm()).item()
            assert info[label] < threshold(DTYPE), f"{name} computes something else"

    def run():
        contestant(problem)
        synchronize()

    def before():
        problem.clear()
        flush_caches()

    before()
    info["peak extra MiB"] = round(peak_extra_mib(run), 1)
    benchmark.pedantic(run, setup=before, rounds=20 if GPU else 5, warmup_rounds=3 if GPU else 1)
    seconds = benchmark.stats.stats.median
    info["tokens/s"] = round(shape.tokens / seconds)
    info["TFLOP/s"] = round(6 * shape.tokens * shape.width * shape.vocabulary / seconds / 1e12, 3)
