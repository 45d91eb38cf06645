import torch
from kernel_device import seeded
from kernel_problem import problem

from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs, reference, tiles


def test_values_and_gradients_are_the_reference_ones():
    (hidden, weight, targets), _ = problem()
    a, b = torch.randn(2, 40, dtype=torch.float64, generator=seeded(3))
    got, want = ([tensor.clone().requires_grad_() for tensor in (hidden, weight)] for _ in range(2))
    logprobs, entropy = linear_logprobs(*got, targets, 0.7)
    (a @ logprobs + b @ entropy).backward()
    logits = want[0] @ want[1].t()
    (a @ reference.token_logprobs(logits, targets, 0.7) + b @ reference.token_entropy(logits, 0.7)).backward()
    torch.testing.assert_close(logprobs, reference.token_logprobs(logits, targets, 0.7), rtol=0, atol=1e-12)
    torch.testing.assert_close(entropy, reference.token_entropy(logits, 0.7), rtol=0, atol=1e-12)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)


def test_gradcheck():
    (hidden, weight, targets), _ = problem(tokens=4, width=3, vocabulary=5)
    leaves = (hidden.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda h, w: linear_logprobs(h, w, targets, 0.7), leaves)


def test_entropy_alone_or_a_frozen_head_differentiate_too():
    (hidden, weight, targets), _ = problem()
    leaf = hidden.clone().requires_grad_()
    linear_logprobs(leaf, weight, targets, 0.7)[1].sum().backward()
    want = hidden.clone().requires_grad_()
    reference.token_entropy(want @ weight.t(), 0.7).sum().backward()
    torch.testing.assert_close(leaf.grad, want.grad, rtol=0, atol=1e-12)


def test_no_tokens_give_empty_logprobs_and_zero_gradients():
    hidden, weight = torch.zeros(0, 3, requires_grad=True), torch.ones(5, 3, requires_grad=True)
    logprobs, entropy = linear_logprobs(hidden, weight, torch.zeros(0, dtype=torch.int64), 1.0)
    (logprobs.sum() + entropy.sum()).backward()
    assert logprobs.shape == entropy.shape == (0,)
    assert hidden.grad.shape == (0, 3)
    assert (weight.grad == 0).all()


def test_the_ratio_is_exactly_one_before_the_first_step(monkeypatch):
    monkeypatch.setattr(tiles, "_MIN_TILE_ROWS", 16)
    monkeypatch.setattr(tiles, "_TILE_BYTES", 0)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        (hidden, weight, targets), options = problem(tokens=100, width=33, vocabulary=501, zero=0.4)
        hidden, weight = hidden.to(dtype).requires_grad_(), weight.to(dtype)
        with torch.no_grad():
            options["old_logprobs"], _ = linear_logprobs(hidden, weight, targets, options["temperature"])
        stats = fused_linear_policy_loss(hidden, weight, targets, **options).stats
        assert 0 < stats["kept"] < 100
        assert (stats["k1_sum"], stats["k3_sum"], stats["ratio_max"]) == (0, 0, 1), dtype


def test_a_tokens_logprob_has_the_same_bits_in_any_pack():
    for dtype in (torch.float32, torch.float64):
        (hidden, weight, targets), _ = problem(tokens=300, width=70, vocabulary=1003)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        whole = torch.stack(linear_logprobs(hidden, weight, targets, 0.9))
        for start, end in ((0, 1), (5, 8), (17, 300), (100, 231)):
            part = torch.stack(linear_logprobs(hidden[start:end], weight, targets[start:end], 0.9))
            assert torch.equal(part, whole[:, start:end]), (dtype, start, end)
