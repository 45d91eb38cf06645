"""The public functions with their loops on the row kernel, as CUDA tensors have it, against the plain reference in float64."""

import sys

import on_kernel  # noqa: F401  first: it skips this file in any other process
import pytest
import torch
from kernel_problem import KINDS, fused, of_kind, plain, problem, spread

from fastgrpo_kernels import cuda_linear, fused_linear_policy_loss, linear_logprobs, linear_policy_op, reference


@pytest.fixture(autouse=True)
def on_the_kernel(monkeypatch):
    for module in (linear_policy_op, sys.modules["fastgrpo_kernels.linear_logprobs"]):
        monkeypatch.setattr(module, "runs_on_kernel", lambda hidden: hidden.dtype != torch.float64)
    monkeypatch.setattr(cuda_linear, "TILE_ROWS", 16)
    monkeypatch.setattr(cuda_linear, "PANEL_ROWS", 32)


def in_float32(options):
    return {name: value.float() if getattr(value, "dtype", None) == torch.float64 else value for name, value in options.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every_term", [False, True])
def test_the_fused_loss_is_the_reference_one(kind, every_term):
    head, options = problem(every_term=every_term)
    options = of_kind(kind, options)
    got, want = fused(head, in_float32(options), torch.float32), spread(plain(head, options), options["loss_mask"])
    for name, value in want.items():
        assert (got[name] - value).norm() <= 3e-6 * value.norm() + 1e-7, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_stays_below_twice_the_error_of_plain_pytorch(dtype):
    (hidden, weight, targets), options = problem(tokens=64, width=64, vocabulary=1000, every_term=True)
    options["loss_mask"] = torch.ones(64, dtype=torch.bool)
    head = (hidden.to(dtype), weight.to(dtype), targets)
    truth, ordinary, got = plain(head, options), plain(head, options, dtype), fused(head, in_float32(options), dtype)
    for name, want in truth.items():
        assert (got[name] - want).norm() <= 2 * (ordinary[name] - want).norm() + 2e-7 * want.norm() + 1e-10, name


@pytest.mark.parametrize("every_term", [False, True])
def test_a_cut_vocabulary_with_bias_and_scaling_is_the_smaller_head(every_term):
    (hidden, weight, targets), options = problem(every_term=every_term)
    options, targets, bias = in_float32(options), targets % 30, torch.linspace(-1, 1, 37)
    leaves = [value.float().requires_grad_() for value in (hidden, weight, bias)]
    small = [leaf.detach()[: 30 if index else None].double().requires_grad_() for index, leaf in enumerate(leaves)]
    more = options | {"logit_scale": 0.5, "softcap": 5.0, "temperature": torch.linspace(0.5, 2, 40)}
    fused_linear_policy_loss(*leaves[:2], targets, bias=leaves[2], vocab_size=30, **more).loss.backward()
    fused_linear_policy_loss(*small[:2], targets, bias=small[2], **more).loss.backward()
    for got, want in zip(leaves, small, strict=True):
        assert (got.grad[: len(want)] - want.grad).norm() <= 3e-6 * want.grad.norm()
        assert (got.grad[len(want) :] == 0).all()


@pytest.mark.parametrize("used", [(1.0, 0.5), (1.0, 0.0), (0.0, 1.0)])
def test_log_probs_and_entropy_are_differentiable(used):
    (hidden, weight, targets), _ = problem()
    leaves = [value.float().requires_grad_() for value in (hidden, weight)]
    exact = [value.double().requires_grad_() for value in (hidden, weight)]
    logits = exact[0] @ exact[1].t()
    wants = reference.token_logprobs(logits, targets, 0.8), reference.token_entropy(logits, 0.8)
    gots = linear_logprobs(*leaves, targets, 0.8)
    for outputs in (gots, wants):
        sum(weight * output.square().sum() for weight, output in zip(used, outputs, strict=True) if weight).backward()
    for got, want in zip((*gots, leaves[0].grad, leaves[1].grad), (*wants, exact[0].grad, exact[1].grad), strict=True):
        assert (got - want).norm() <= 3e-6 * want.norm()


def test_per_token_tensors_may_have_any_stride():
    (hidden, weight, targets), _ = problem()
    spaced, temperature = torch.stack([targets, targets], 1)[:, 0], torch.full((1,), 0.8).expand(40)
    grads = []
    for labels, degrees in ((spaced, temperature), (targets, 0.8)):
        leaf = hidden.float().requires_grad_()
        linear_logprobs(leaf, weight.float(), labels, degrees)[0].sum().backward()  # the gradient of a sum has stride 0
        grads.append(leaf.grad)
    assert torch.equal(*grads) and grads[0].abs().max() > 0


def test_the_ratio_is_one_bit_for_bit_before_the_first_step():
    (hidden, weight, targets), options = problem(tokens=75)
    head = hidden.bfloat16(), weight.bfloat16(), targets
    old, _ = linear_logprobs(*head, temperature=0.8)
    keep = {"loss_mask": torch.arange(75) % 3 > 0, "old_logprobs": old}
    out = fused_linear_policy_loss(*head, **in_float32(options) | keep)
    assert out.stats["k1_sum"] == 0 and out.stats["ratio_max"] == 1


def test_no_rows_give_zero_gradients():
    (hidden, weight, targets), options = problem()
    leaves = [value.bfloat16().requires_grad_() for value in (hidden, weight)]
    fused_linear_policy_loss(*leaves, targets, **in_float32(options) | {"loss_mask": torch.zeros(40, dtype=torch.bool)}).loss.backward()
    assert all((leaf.grad == 0).all() for leaf in leaves)
