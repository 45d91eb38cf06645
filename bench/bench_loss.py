"""Forward and backward of the policy loss, fused against eager PyTorch on full logits: the same tensors, the same objective.

On a CPU the shapes are small and the times are a smoke test, no results: the benchmark's `note` says so.
"""

import pytest
import torch

from fastgrpo_kernels import fused_linear_policy_loss, reference

TOKENS, HIDDEN, VOCABULARY = 512, 256, 8192
OBJECTIVE = {"temperature": 1.0, "clip_low": 0.2, "clip_high": 0.2, "denominator": 1000.0}


def tensors():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator).requires_grad_()
    weight = (torch.randn(VOCABULARY, HIDDEN, generator=generator) / HIDDEN**0.5).requires_grad_()
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    advantages = torch.randn(TOKENS, generator=generator)
    advantages[: int(0.4 * TOKENS)] = 0  # groups without signal
    old = reference.token_logprobs(hidden.detach() @ weight.detach().T, targets, 1.0) + 0.1 * torch.randn(TOKENS, generator=generator)
    return hidden, weight, targets, advantages, old


def fused(hidden, weight, targets, advantages, old):
    fused_linear_policy_loss(hidden, weight, targets, advantages=advantages, old_logprobs=old, **OBJECTIVE).loss.backward()


def eager(hidden, weight, targets, advantages, old):
    logits = hidden @ weight.T
    reference.policy_loss_from_logits(logits, targets, advantages=advantages, old_logprobs=old, **OBJECTIVE)[0].backward()


@pytest.mark.benchmark(group=f"policy loss, {TOKENS} tokens, hidden {HIDDEN}, vocabulary {VOCABULARY}, float32")
@pytest.mark.parametrize("loss", [fused, eager], ids=lambda loss: loss.__name__)
def test_policy_loss(benchmark, loss):
    benchmark.extra_info["note"] = "CPU smoke shape: no result"
    given = tensors()
    benchmark(loss, *given)
    truth = tensors()
    eager(*truth)
    given[0].grad = given[1].grad = None
    loss(*given)
    for got, want in zip(given[:2], truth[:2], strict=True):
        error = ((got.grad - want.grad).norm() / want.grad.norm()).item()
        benchmark.extra_info[f"relative error of grad {tuple(got.shape)}"] = error
        assert error < 1e-5
