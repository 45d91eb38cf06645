"""What only a GPU can show of the kernels: large shapes, products on tensor cores, reruns to the bit, and what a call holds in memory.

Not run so far for want of a GPU; the bodies were tried on a CPU at small sizes, as `SMALL` says.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs, policy_loss_from_logits, reference

pytestmark = pytest.mark.gpu
SMALL = os.environ.get("KERNEL_TESTS_SMALL") == "1"  # to try these bodies without a GPU
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available() and not SMALL, reason="needs a GPU")
DEVICE, QWEN = ("cpu", 1000) if SMALL else ("cuda", 151_936)
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
CLIP = {"clip_low": 0.2, "clip_high": 0.2, "temperature": 1.0}
LOG_RATIOS = (-0.6, -0.1, 0.0, 0.05, 0.1, 0.5)  # away from the clip bounds


def problem(tokens, width, vocabulary, dtype, seed=0):
    """((hidden (T, H), weight (V, H), targets (T,)), options) on the device."""
    random = torch.Generator(DEVICE).manual_seed(seed)
    on = {"device": DEVICE, "generator": random}
    hidden = torch.randn(tokens, width, **on).to(dtype)
    weight = (torch.randn(vocabulary, width, **on) * width**-0.5).to(dtype)
    targets = torch.randint(vocabulary, (tokens,), **on)
    ratios = torch.tensor(LOG_RATIOS, device=DEVICE)[torch.randint(len(LOG_RATIOS), (tokens,), **on)]
    old = exact_logprobs(hidden, weight, targets).float() - ratios
    return (hidden, weight, targets), CLIP | {
        "advantages": torch.randn(tokens, **on),
        "old_logprobs": old,
        "denominator": 64.0,
    }  # float16 holds the gradients


@torch.no_grad()
def exact_logprobs(hidden, weight, targets):
    parts = zip(hidden.split(512), targets.split(512), strict=True)
    return torch.cat([reference.token_logprobs(rows.double() @ weight.double().t(), labels, 1.0) for rows, labels in parts])


def fused(head, options):
    """(logprobs, dX, dW)."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in head[:2]]
    out = fused_linear_policy_loss(*leaves, head[2], **options)
    out.loss.backward()
    return [out.logprobs, *(leaf.grad for leaf in leaves)]


def plain(head, options, dtype):
    """The same in the given dtype by plain PyTorch, 512 rows at a time; logits become float32 where they are 16 bit."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in head[:2]]
    logprobs = []
    for start in range(0, len(leaves[0]), 512):
        rows = slice(start, start + 512)
        logits = leaves[0][rows] @ leaves[1].t()
        found = reference.token_logprobs(logits if dtype == torch.float64 else logits.float(), head[2][rows], 1.0)
        columns = {name: options[name][rows].to(found.dtype) for name in ("advantages", "old_logprobs")}
        losses = reference.token_losses(found, **columns, clip_low=0.2, clip_high=0.2)
        (losses.sum() / options["denominator"]).backward()
        logprobs.append(found.detach())
    return [torch.cat(logprobs), *(leaf.grad for leaf in leaves)]


def test_the_kernel_tests_pass_on_a_gpu():
    """In a process of their own, because there all of them make their tensors on the GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", str(folder), "-q", "--tb=short", "-p", "no:cacheprovider", "-m", "not gpu and not long"]
    ran = subprocess.run(command, env=os.environ | {"KERNEL_TESTS_ON": "cuda"}, cwd=folder.parents[1], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]


@needs_gpu
@DTYPES
def test_the_error_against_float64_is_within_its_bounds_at_the_vocabulary_of_qwen(dtype):
    head, options = problem(*((64, 32) if SMALL else (2048, 1536)), QWEN, dtype)
    got, want, ordinary = fused(head, options), plain(head, options, torch.float64), plain(head, options, dtype)
    assert (got[0] - want[0]).abs().max() <= 1e-4  # float32 logits: from bf16 ones it would be 0.03
    for name, a, b, c in zip(("dX", "dW"), got[1:], want[1:], ordinary[1:], strict=True):
        error, size = (a.double() - b).norm(), b.norm()
        assert error <= 3e-3 * size and error <= 2 * (c.double() - b).norm() + 1e-6 * size, name
        kept = b.norm(dim=1) > 1e-3 * b.norm(dim=1).max()
        assert torch.nn.functional.cosine_similarity(a[kept].double() / size, b[kept] / size).min() >= 0.9999, name


@needs_gpu
@DTYPES
def test_two_runs_agree_bit_for_bit(dtype):
    head, options = problem(*((70, 33) if SMALL else (5000, 1536)), QWEN, dtype)
    assert all(torch.equal(one, two) for one, two in zip(fused(head, options), fused(head, options), strict=True))


@needs_gpu
@DTYPES
def test_the_ratio_is_one_to_the_bit_whatever_pack_the_old_log_probs_came_from(dtype):
    (hidden, weight, targets), options = problem(*((70, 33) if SMALL else (5000, 1536)), QWEN, dtype)
    order = torch.randperm(len(hidden), device=DEVICE)
    old = torch.empty(len(hidden), device=DEVICE)
    for part in order.split(777):  # other packs, other rows beside each row
        old[part] = linear_logprobs(hidden[part], weight, targets[part], 1.0)[0]
    stats = fused_linear_policy_loss(hidden, weight, targets, **options | {"old_logprobs": old}).stats
    assert stats["ratio_max"] == 1 and stats["k1_sum"] == 0


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_of_more_than_two_to_the_31_entries(dtype):
    """Every row holds the same logits, so that each has the gradient of the first one, turned by its advantage."""
    tokens = 40 if SMALL else 14_336
    assert SMALL or tokens * QWEN > 2**31
    row = torch.randn(QWEN, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0)).to(dtype)
    logits = row.repeat(tokens, 1).requires_grad_()
    targets, advantages = torch.full((tokens,), 17, device=DEVICE), torch.ones(tokens, device=DEVICE)
    advantages[1::2] = -1
    out = policy_loss_from_logits(logits, targets, advantages=advantages, denominator=1.0, **CLIP)
    out.loss.backward()
    want = reference.token_logprobs(row[None].double(), targets[:1], 1.0)
    assert (out.logprobs.double() - want).abs().max() <= 1e-4
    first, negative = logits.grad[0], -logits.grad[0]
    assert first.abs().max() > 0.5
    for t in (1, tokens // 2, tokens - 3, tokens - 2, tokens - 1):
        assert torch.equal(logits.grad[t], first if t % 2 == 0 else negative), t


@needs_gpu
def test_rows_by_vocabulary_beyond_two_to_the_31_through_the_head():
    (hidden, weight, targets), options = problem(*((90, 32) if SMALL else (16_384, 256)), QWEN, torch.bfloat16)
    logprobs, dx, _ = fused((hidden, weight, targets), options)
    rows = torch.tensor([0, 1, len(hidden) // 2, len(hidden) - 2, len(hidden) - 1], device=DEVICE)
    few = {name: options[name][rows] for name in ("advantages", "old_logprobs")}
    want = plain((hidden[rows], weight, targets[rows]), options | few, torch.float64)
    assert (logprobs[rows] - want[0]).abs().max() <= 1e-4
    assert (dx[rows].double() - want[1]).norm() <= 3e-3 * want[1].norm()


@needs_gpu
def test_nothing_is_compiled_anew_for_another_batch_or_temperature():
    from fastgrpo_kernels.triton_row import row_kernel

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    cache, seen = row_kernel.device_caches[torch.cuda.current_device()][0], set()
    for tokens, temperature in ((64, 1.0), (65, 0.7), (1, 0.3), (700, 1.3)):
        (hidden, weight, targets), options = problem(tokens, 64, QWEN, torch.bfloat16)
        fused((hidden, weight, targets), options | {"temperature": temperature})
        seen.add(len(cache))
    assert len(seen) == 1


@needs_gpu
def test_a_call_holds_what_the_plan_counts():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    tokens, width = 32_768, 2048
    head, options = problem(tokens, width, QWEN, torch.bfloat16)
    leaves = [tensor.requires_grad_() for tensor in head[:2]]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    fused_linear_policy_loss(*leaves, head[2], **options)
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < 3.1 * 2**30  # cuda_linear counts 2.9 GiB
