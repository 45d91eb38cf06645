"""What must not matter to the fused loss does not: each test computes it twice."""

import pytest
import torch
from kernel_problem import KINDS, assert_same, fused, of_kind, problem, value_and_grads
from torch.utils.checkpoint import checkpoint

from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs, policy_loss, policy_loss_from_logits, tiles
from fastgrpo_kernels.linear_policy_op import linear_policy_op


def test_denominator_is_a_scale_of_one_over_it():
    head, options = problem()
    del options["scale"]
    ones = torch.full((40,), 1 / 7, dtype=torch.float64)
    assert_same(fused(head, options | {"denominator": 7}), fused(head, options | {"scale": ones}), 1e-15)


def test_without_old_logprobs_the_ratio_is_one():
    (hidden, weight, targets), options = problem()
    old, _ = linear_logprobs(hidden, weight, targets, options["temperature"])
    head = (hidden, weight, targets)
    assert_same(fused(head, options | {"old_logprobs": None}), fused(head, options | {"old_logprobs": old}), 1e-15)


def test_a_constant_added_to_all_logits_changes_nothing():
    (hidden, weight, targets), options = problem(every_term=True)
    want = fused((hidden, weight, targets), options)
    shifted = torch.cat([hidden, torch.full((40, 1), 100.0)], dim=1), torch.cat([weight, torch.ones(37, 1)], dim=1), targets
    got = fused(shifted, options)
    got["dX"], got["dW"] = got["dX"][:, :-1], got["dW"][:, :-1]
    assert_same(got, want, 1e-11)


@pytest.mark.parametrize("rows", [16, 48])
def test_the_size_of_a_tile_changes_nothing(monkeypatch, rows):
    head, options = problem(tokens=150, every_term=True)
    whole = fused(head, options)
    monkeypatch.setattr(tiles, "_TILE_BYTES", 0)
    monkeypatch.setattr(tiles, "_MIN_TILE_ROWS", rows)
    got = fused(head, options)
    assert_same(got, whole, 1e-13)
    assert torch.equal(got["logprobs"], whole["logprobs"])


@pytest.mark.parametrize("garbage", [1e4, float("nan")])
def test_garbage_in_masked_rows_changes_nothing(garbage):
    (hidden, weight, targets), options = problem(every_term=True)
    want = fused((hidden, weight, targets), options)
    masked = ~options["loss_mask"]
    for name in ("advantages", "old_logprobs", "ref_logprobs", "sampler_logprobs", "scale"):
        options[name] = options[name].masked_fill(masked, garbage)
    dirty = hidden.masked_fill(masked[:, None], garbage), weight, targets.masked_fill(masked, -100)
    got = fused(dirty, options)
    assert all(torch.equal(got[name], value) for name, value in want.items())


def test_tokens_without_advantage_never_reach_the_head_and_dropping_them_changes_nothing():
    (hidden, weight, targets), options = problem(zero=0.5)
    options["loss_mask"] = torch.ones(40, dtype=torch.bool)
    silent = options["advantages"] == 0
    want = fused((hidden, weight, targets), options)
    got = fused((hidden.masked_fill(silent[:, None], torch.nan), weight, targets), options)
    assert all(torch.equal(got[name], value) for name, value in want.items())
    short = {name: value[~silent] if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    dropped = fused((hidden[~silent], weight, targets[~silent]), short)
    assert torch.equal(dropped["dW"], want["dW"])
    assert torch.equal(dropped["dX"], want["dX"][~silent])
    assert torch.equal(dropped["loss"], want["loss"])
    stats = fused_linear_policy_loss(hidden, weight, targets, **options).stats
    assert (stats["tokens"], stats["kept"]) == (40, (~silent).sum())
    for term in ({"entropy_coef": 1e-30}, {"beta": 1e-30, "ref_logprobs": options["old_logprobs"]}):  # these need every row
        assert (fused((hidden, weight, targets), options | term)["logprobs"] != 0).all()


def test_two_runs_give_the_same_bits():
    head, options = problem(tokens=200, width=65, vocabulary=501, every_term=True)
    first, second = (fused(head, options, torch.float32) for _ in range(2))
    assert all(torch.equal(second[name], value) for name, value in first.items())


def test_rows_of_hidden_may_lie_at_any_stride():
    (hidden, weight, targets), options = problem()
    strided = torch.stack([hidden, hidden + 1], dim=2)[:, :, 0]
    assert not strided.is_contiguous()
    want, leaf = fused((hidden, weight, targets), options), strided.requires_grad_()
    fused_linear_policy_loss(leaf, weight, targets, **options).loss.backward()
    assert torch.equal(leaf.grad, want["dX"])


def test_autocast_changes_nothing():
    head, options = problem()
    want = fused(head, options, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = fused(head, options, torch.float32)
        logprobs, _ = linear_logprobs(*(tensor.float() for tensor in head[:2]), head[2], options["temperature"])
    assert all(torch.equal(got[name], value) for name, value in want.items())
    kept = options["loss_mask"]
    assert torch.equal(logprobs[kept].double(), want["logprobs"][kept])


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_around_it_changes_nothing(reentrant):
    (hidden, weight, targets), options = problem()
    want = fused((hidden, weight, targets), options)

    def wrapped(x, w):
        loss = checkpoint(lambda x, w: fused_linear_policy_loss(x, w, targets, **options).loss, x, w, use_reentrant=reentrant)
        return loss, loss, loss

    got = value_and_grads(wrapped, hidden, weight)
    assert all(torch.equal(got[name], want[name]) for name in ("loss", "dX", "dW"))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_say_what_loss_mask_says(kind):
    (hidden, weight, targets), options = problem(every_term=True, zero=0.3)
    options = of_kind(kind, options)
    rows = options["loss_mask"].nonzero().squeeze(1)
    by_rows = options | {"loss_mask": None, "rows": rows}
    head = (hidden, weight, targets)
    want, got = fused(head, options), fused(head, by_rows)
    assert all(torch.equal(got[name], value) for name, value in want.items())
    logits = hidden @ weight.t()
    for name, value in policy_loss_from_logits(logits, targets, **options).stats.items():
        assert torch.equal(policy_loss_from_logits(logits, targets, **by_rows).stats[name], value), name
    alone = {name: value for name, value in options.items() if name not in ("temperature", "entropy_coef")}
    want, got = policy_loss(want["logprobs"], **alone), policy_loss(want["logprobs"], **(alone | {"loss_mask": None, "rows": rows}))
    assert torch.equal(got.loss, want.loss)


def test_rows_are_taken_without_looking_for_them_and_computed_even_without_advantage():
    class NoSearch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.fastgrpo_kernels.linear_policy_loss.default:
                with self:
                    return linear_policy_op._init_fn(*args)
            assert function._overloadpacket is not torch.ops.aten.nonzero
            return function(*args, **(kwargs or {}))

    (hidden, weight, targets), options = problem(zero=0.5)
    rows = torch.arange(0, 40, 2)
    with NoSearch():
        out = fused_linear_policy_loss(hidden, weight, targets, **(options | {"loss_mask": None, "rows": rows}))
    assert (out.stats["tokens"], out.stats["kept"]) == (20, 20)
    assert (out.logprobs != 0).nonzero().squeeze(1).tolist() == rows.tolist()


def test_no_rows_at_all_still_give_zero_gradients_and_not_none():
    for kind in KINDS:
        (hidden, weight, targets), options = problem(every_term=True)
        options = of_kind(kind, options) | {"loss_mask": None, "rows": torch.zeros(0, dtype=torch.int64)}
        leaves = [hidden.requires_grad_(), weight.requires_grad_(), torch.zeros(37, dtype=torch.float64, requires_grad=True)]
        fused_linear_policy_loss(*leaves[:2], targets, bias=leaves[2], **options).loss.backward()
        assert all((leaf.grad == 0).all() and leaf.grad.shape == leaf.shape for leaf in leaves)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_around_the_other_entrances_changes_nothing(reentrant):
    (hidden, weight, targets), options = problem(every_term=True)

    def from_logits(x, w):
        return policy_loss_from_logits(x @ w.t(), targets, **options).loss

    def from_logprobs(x, w):
        return linear_logprobs(x, w, targets, 0.8)[0].square().sum()

    for function in (from_logits, from_logprobs):

        def plain(x, w, function=function):
            return (loss := function(x, w)), loss, loss

        def wrapped(x, w, function=function):
            return (loss := checkpoint(function, x, w, use_reentrant=reentrant)), loss, loss

        want, got = value_and_grads(plain, hidden, weight), value_and_grads(wrapped, hidden, weight)
        assert all(torch.equal(got[name], want[name]) for name in want)


def test_float16_heads_with_a_bias_agree_with_float32_ones():
    (hidden, weight, targets), options = problem(every_term=True)
    bias = torch.linspace(-1, 1, 37)
    grads = []
    for dtype in (torch.float16, torch.float32):
        leaves = [tensor.to(torch.float16).to(dtype).requires_grad_() for tensor in (hidden, weight, bias)]
        (256 * fused_linear_policy_loss(leaves[0], leaves[1], targets, bias=leaves[2], softcap=8.0, **options).loss).backward()
        grads.append([leaf.grad.float() for leaf in leaves])
    for x, y in zip(*grads, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-5)
