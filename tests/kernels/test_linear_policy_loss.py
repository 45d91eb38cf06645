"""From hidden states to the loss: against the plain reference in every precision, at the edges, and in what it costs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_problem import assert_same, fused, plain, problem, spread, value_and_grads

from fastgrpo_kernels import fused_linear_policy_loss, policy_loss, reference, tiles
from fastgrpo_kernels.linear_policy_op import linear_policy_op


@pytest.mark.parametrize("every_term", [False, True])
def test_value_and_gradients_are_the_reference_ones_in_float64(every_term):
    head, options = problem(every_term=every_term)
    assert_same(fused(head, options), spread(plain(head, options), options["loss_mask"]), 1e-12)


# Rounding a bf16 result costs up to 2^-9 of it; plain PyTorch also rounds its logits, so twice its error leaves ample room.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("every_term", [False, True])
@pytest.mark.parametrize("vocabulary", [1000, 1])
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype, every_term, vocabulary):
    (hidden, weight, targets), options = problem(tokens=64, width=64, vocabulary=vocabulary, every_term=every_term)
    options["loss_mask"] = torch.ones(64, dtype=torch.bool)
    head = (hidden.to(dtype), weight.to(dtype), targets)
    truth, ordinary, got = plain(head, options), plain(head, options, dtype), fused(head, options, dtype)
    for name, want in truth.items():
        room = 2 * (ordinary[name] - want).norm() + 1e-7 * want.norm() + 1e-10
        assert (got[name] - want).norm() <= room, name


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    tokens=st.integers(0, 70),
    width=st.integers(1, 40),
    vocabulary=st.integers(1, 130),
    seed=st.integers(0, 2**31),
    every_term=st.booleans(),
)
def test_any_shape_agrees_with_the_reference(tokens, width, vocabulary, seed, every_term):
    head, options = problem(tokens, width, vocabulary, seed, zero=0.3, every_term=every_term)
    got = fused(head, options)
    want = spread(plain(head, options), options["loss_mask"])
    for name in ("loss", "dX", "dW"):
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-11)


def test_the_entropy_bonus_alone_moves_along_the_gradient_of_the_entropy():
    (hidden, weight, targets), options = problem()
    options |= {"advantages": torch.zeros(40), "entropy_coef": 0.3, "scale": torch.full((40,), 0.5), "loss_mask": None}
    got = fused((hidden, weight, targets), options)

    def bonus(x, w):
        entropy = reference.token_entropy(x @ w.t(), 0.8)
        return -0.15 * entropy.sum(), entropy, entropy

    want = value_and_grads(bonus, hidden, weight)
    for name in ("loss", "dX", "dW"):
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens", [0, 40])
def test_no_kept_rows_give_zero_loss_and_zero_gradients(tokens):
    (hidden, weight, targets), options = problem(tokens=tokens)
    options["loss_mask"] = torch.zeros(tokens, dtype=torch.bool)
    leaves = [tensor.requires_grad_() for tensor in (hidden, weight)]
    out = fused_linear_policy_loss(*leaves, targets, **options)
    out.loss.backward()
    assert out.loss == 0
    assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape and (leaf.grad == 0).all() for leaf in leaves)
    assert all(value == 0 for value in out.stats.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_incoming_gradient_scales_both_gradients(dtype):
    (hidden, weight, targets), options = problem()
    head = hidden.to(dtype), weight.to(dtype), targets
    options["scale"] = options["scale"] * 1e-6  # below float16 until a loss scaler lifts it
    want = fused(head, options | {"scale": options["scale"] * 2**16}, dtype)
    got = value_and_grads(
        lambda x, w: (2**16 * (out := fused_linear_policy_loss(x, w, targets, **options))[0], *out[1:3]), *head[:2], dtype
    )
    for name in ("dX", "dW"):
        torch.testing.assert_close(got[name], want[name], rtol=1e-3, atol=1e-9)
    assert got["dX"].abs().max() > 0


def test_a_second_backward_raises_and_says_why():
    (hidden, weight, targets), options = problem()
    loss = fused_linear_policy_loss(hidden.requires_grad_(), weight, targets, **options).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward through fused_linear_policy_loss"):
        loss.backward()


class Products(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the multiply-adds of matrix products, and the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.work, self.largest = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.fastgrpo_kernels.linear_policy_loss.default:
            with self:  # look inside the operator
                return linear_policy_op._init_fn(*args)
        result = function(*args, **(kwargs or {}))
        if function._overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_):
            left, right = args[-2:]
            self.work += left.shape[0] * left.shape[1] * right.shape[1]
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize(("leaves", "products"), [((True, True), 3), ((True, False), 2), ((False, True), 2), ((False, False), 1)])
def test_only_the_products_that_are_wanted_run_and_no_tensor_of_all_logits_exists(monkeypatch, leaves, products):
    monkeypatch.setattr(tiles, "_TILE_BYTES", 0)
    monkeypatch.setattr(tiles, "_MIN_TILE_ROWS", 16)
    (hidden, weight, targets), options = problem(tokens=160)
    options["loss_mask"] = torch.arange(160) < 128
    with Products() as seen:
        out = fused_linear_policy_loss(hidden.requires_grad_(leaves[0]), weight.requires_grad_(leaves[1]), targets, **options)
    assert seen.work == products * 128 * 12 * 37
    assert seen.largest < 160 * 37 / 2
    assert out.loss.requires_grad == any(leaves)
    if any(leaves):
        out.loss.backward()
    assert (hidden.grad is not None, weight.grad is not None) == leaves


def test_without_grad_mode_only_the_forward_product_runs():
    (hidden, weight, targets), options = problem(tokens=32)
    options["loss_mask"] = None
    with Products() as seen, torch.no_grad():
        loss = fused_linear_policy_loss(hidden.requires_grad_(), weight.requires_grad_(), targets, **options).loss
    assert (seen.work, loss.requires_grad) == (32 * 12 * 37, False)


def test_tied_embeddings_receive_both_gradients():
    (_, weight, targets), options = problem()
    got, want = (weight.clone().requires_grad_() for _ in range(2))
    fused_linear_policy_loss(got[targets].tanh(), got, targets, **options).loss.backward()
    reference.policy_loss_from_logits(want[targets].tanh() @ want.t(), targets, **options)[0].backward()
    torch.testing.assert_close(got.grad, want.grad, rtol=0, atol=1e-12)


def test_stats_are_those_of_policy_loss_on_the_same_rows_with_the_entropy_added():
    (hidden, weight, targets), options = problem(every_term=True)
    out = fused_linear_policy_loss(hidden, weight, targets, **options)
    entropy_coef, _ = options.pop("entropy_coef"), options.pop("temperature")
    want = policy_loss(out.logprobs, **options).stats
    got = dict(out.stats)
    assert got["entropy_sum"] == pytest.approx(out.entropy.sum().item())
    assert got.pop("loss_sum") == pytest.approx(want.pop("loss_sum").item() - entropy_coef * got.pop("entropy_sum").item())
    assert {name: value.item() for name, value in got.items()} == pytest.approx({name: value.item() for name, value in want.items()})
    assert all(value.shape == () and value.dtype in (torch.int64, torch.float64) for value in out.stats.values())
