"""What a head may do to its logits: bias, scale, softcap, a temperature per token, columns of padding. Against the plain definition."""

import pytest
import torch
from kernel_device import seeded
from kernel_problem import problem, value_and_grads

from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs, policy_loss_from_logits, reference

TEMPERATURES = 0.5 + torch.rand(40, dtype=torch.float64, generator=seeded(5))
BIAS = torch.randn(37, dtype=torch.float64, generator=seeded(6))
HEADS = [
    {"temperature": TEMPERATURES},
    {"softcap": 1.5},
    {"logit_scale": 0.3},
    {"vocab_size": 30},
    {"temperature": TEMPERATURES, "softcap": 1.5, "logit_scale": 1.7, "vocab_size": 30},
]
EVERY_HEAD = pytest.mark.parametrize("head", HEADS, ids=lambda head: "+".join(head))


def parts():
    (hidden, weight, targets), options = problem(every_term=True)
    return hidden, weight, targets % 30, options


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def compare(got, want, tolerance=1e-12):
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=tolerance)


@EVERY_HEAD
def test_the_loss_and_its_three_gradients_are_the_reference_ones(head):
    hidden, weight, targets, options = parts()
    options |= head
    got, want = leaves(hidden, weight, BIAS), leaves(hidden, weight, BIAS)
    out = fused_linear_policy_loss(got[0], got[1], targets, bias=got[2], **options)
    loss, logprobs, entropy = reference.policy_loss_from_logits(want[0] @ want[1].t() + want[2], targets, **options)
    out.loss.backward()
    loss.backward()
    torch.testing.assert_close(out.loss, loss, rtol=0, atol=1e-12)
    kept = options["loss_mask"]
    torch.testing.assert_close(out.logprobs[kept], logprobs.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.entropy[kept], entropy.detach(), rtol=0, atol=1e-12)
    compare(got, want)


@EVERY_HEAD
def test_the_loss_from_logits_and_its_gradient_are_the_reference_ones(head):
    hidden, weight, targets, options = parts()
    options |= head
    got, want = leaves(hidden @ weight.t()), leaves(hidden @ weight.t())
    policy_loss_from_logits(got[0], targets, **options).loss.backward()
    reference.policy_loss_from_logits(want[0], targets, **options)[0].backward()
    compare(got, want)


@EVERY_HEAD
def test_log_probs_and_their_three_gradients_are_the_reference_ones(head):
    hidden, weight, targets, _ = parts()
    head = {"temperature": 0.8} | head
    got, want = leaves(hidden, weight, BIAS), leaves(hidden, weight, BIAS)
    a, b = torch.randn(2, 40, dtype=torch.float64, generator=seeded(3))
    logprobs, entropy = linear_logprobs(got[0], got[1], targets, bias=got[2], **head)
    (a @ logprobs + b @ entropy).backward()
    logits = want[0] @ want[1].t() + want[2]
    (a @ reference.token_logprobs(logits, targets, **head) + b @ reference.token_entropy(logits, **head)).backward()
    compare(got, want)


@EVERY_HEAD
def test_gradcheck_of_log_probs_in_hidden_weight_and_bias(head):
    (hidden, weight, targets), _ = problem(tokens=4, width=3, vocabulary=5)
    head = {"temperature": 0.8} | head | ({"vocab_size": 4} if "vocab_size" in head else {})
    if isinstance(head["temperature"], torch.Tensor):
        head["temperature"] = TEMPERATURES[:4]
    inputs = leaves(hidden, weight, BIAS[:5])
    assert torch.autograd.gradcheck(lambda x, w, b: linear_logprobs(x, w, targets % 4, bias=b, **head), inputs)


def test_log_probs_have_the_same_bits_in_both_functions_under_any_head():
    for dtype in (torch.float32, torch.bfloat16):
        hidden, weight, targets, options = parts()
        head = HEADS[-1] | {"bias": BIAS.to(dtype)}
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        options |= head | {"loss_mask": torch.arange(40) > 20}
        out = fused_linear_policy_loss(hidden, weight, targets, **options)
        logprobs, entropy = linear_logprobs(hidden, weight, targets, **head)
        assert torch.equal(out.logprobs[21:], logprobs[21:])
        assert torch.equal(out.entropy[21:], entropy[21:])


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_padded_columns_count_as_minus_infinity_and_not_as_logit_zero(softcap):
    hidden, weight, targets, options = parts()
    options["softcap"] = softcap
    short = value_and_grads(lambda x, w: fused_linear_policy_loss(x, w, targets, **options), hidden, weight[:30])
    zeros, minus = (
        torch.zeros(37, dtype=torch.float64),
        torch.zeros(37, dtype=torch.float64).index_fill(0, torch.arange(30, 37), -torch.inf),
    )
    padded = torch.cat([weight[:30], torch.zeros(7, 12, dtype=torch.float64)])  # whose logits are 0
    for marked in ({"vocab_size": 30, "bias": zeros}, {"vocab_size": 30}, {"bias": minus}):
        got = value_and_grads(lambda x, w, marked=marked: fused_linear_policy_loss(x, w, targets, **options, **marked), hidden, padded)
        assert (got["dW"][30:] == 0).all()
        got["dW"] = got["dW"][:30]
        for name, want in short.items():
            torch.testing.assert_close(got[name], want, rtol=0, atol=1e-13)
    leaf = (hidden @ padded.t() + minus).requires_grad_()
    out = policy_loss_from_logits(leaf, targets, **options)
    out.loss.backward()
    torch.testing.assert_close(out.loss.detach(), short["loss"], rtol=0, atol=1e-13)
    assert (leaf.grad[:, 30:] == 0).all()
    assert leaf.grad.isfinite().all()


def test_one_temperature_for_every_token_is_that_temperature():
    hidden, weight, targets, options = parts()
    one = fused_linear_policy_loss(hidden, weight, targets, **options).loss
    many = fused_linear_policy_loss(hidden, weight, targets, **(options | {"temperature": torch.full((40,), 0.8)})).loss
    torch.testing.assert_close(many, one, rtol=1e-6, atol=0)
