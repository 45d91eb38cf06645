"""The kinds of objective: by hand, against autograd through the plain definition from each entrance, and faults that others have had."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_problem import KINDS, assert_same, fused, of_kind, plain, problem, spread, value_and_grads

from fastgrpo_kernels import fused_linear_policy_loss, policy_loss, policy_loss_from_logits, reference

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def one(ratio, advantage, **options):
    """(loss, slope, stats) of a token of log-prob -2 with this ratio and advantage."""
    logprobs = torch.tensor([-2.0], dtype=torch.float64, requires_grad=True)
    signal = {"grad_logprobs" if options["kind"] == "given" else "advantages": torch.tensor([advantage], dtype=torch.float64)}
    out = policy_loss(logprobs, old_logprobs=logprobs.detach() - math.log(ratio), denominator=1, **signal, **options)
    out.loss.backward()
    return out.loss.item(), logprobs.grad.item(), out.stats


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight"), [(0.5, 2.0, 0.5), (1.1, -2.0, 1.1), (3.0, 2.0, 1.3), (3.0, -2.0, 1.3), (3.0, 0.0, 0.0)]
)
def test_cispo_by_hand(ratio, advantage, weight):
    loss, slope, stats = one(ratio, advantage, kind="cispo", clip_high=0.3)
    assert (loss, slope) == pytest.approx((weight * advantage * 2, -weight * advantage), abs=1e-14)
    assert (stats["clip_low"], stats["clip_high"]) == (0, advantage != 0 and ratio > 1.3)


@pytest.mark.parametrize(("advantage", "tau"), [(2.0, 1.5), (-2.0, 0.7), (0.0, 0.7)])
def test_sapo_by_hand(advantage, tau):
    loss, slope, _ = one(1.8, advantage, kind="sapo", tau_pos=1.5, tau_neg=0.7)
    s = 1 / (1 + math.exp(-tau * 0.8))
    assert (loss, slope) == pytest.approx((-4 / tau * s * advantage, -4 * advantage * s * (1 - s) * 1.8), abs=1e-14)


def test_sapo_on_policy_has_the_slope_of_reinforce_and_nothing_far_away():
    assert one(1.0, 3.0, kind="sapo")[1] == pytest.approx(-3.0)
    assert one(math.exp(25), -3.0, kind="sapo")[1] == 0


@pytest.mark.parametrize(("kind", "sign"), [("reinforce", -1), ("given", 1)])
def test_reinforce_and_given_by_hand(kind, sign):
    for ratio in (1.0, 5.0):
        assert one(ratio, 3.0, kind=kind)[:2] == pytest.approx((sign * 3.0 * -2.0, sign * 3.0))


@EVERY_KIND
def test_every_kind_with_every_term_is_what_autograd_makes_of_the_definition(kind):
    head, options = problem(every_term=True, zero=0.3)
    options = of_kind(kind, options)
    assert_same(fused(head, options), spread(plain(head, options), options["loss_mask"]), 1e-12)


@EVERY_KIND
@pytest.mark.parametrize("every_term", [False, True])
def test_from_logits_every_kind_is_what_autograd_makes_of_the_definition(kind, every_term):
    (hidden, weight, targets), options = problem(every_term=every_term, zero=0.3)
    options = of_kind(kind, options)
    got = value_and_grads(lambda x, w: policy_loss_from_logits(x @ w.t(), targets, **options), hidden, weight)
    assert_same(got, spread(plain((hidden, weight, targets), options), options["loss_mask"]), 1e-12)


@EVERY_KIND
def test_from_logprobs_gradcheck_of_every_kind(kind):
    _, options = problem(tokens=12, every_term=True)
    del options["temperature"], options["entropy_coef"]
    options = of_kind(kind, options)
    logprobs = (options["old_logprobs"] + 0.03).requires_grad_()
    if kind != "cispo":  # whose loss has a stopped gradient in it: no finite difference sees that
        assert torch.autograd.gradcheck(lambda values: policy_loss(values, **options).loss, (logprobs,))
    want = logprobs.detach().clone().requires_grad_()
    weights, mask = options.pop("scale"), options.pop("loss_mask")
    (weights * mask * reference.token_losses(want, **options)).sum().backward()
    policy_loss(logprobs, scale=weights, loss_mask=mask, **options).loss.backward()
    torch.testing.assert_close(logprobs.grad, want.grad, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(0, 17), max_size=5),
    width=st.integers(1, 20),
    vocabulary=st.integers(1, 80),
    seed=st.integers(0, 2**31),
    every_term=st.booleans(),
    masked=st.sampled_from(("some", "none", "all")),
)
def test_any_kind_over_any_pack_and_mask_agrees_with_the_reference(kind, lengths, width, vocabulary, seed, every_term, masked):
    tokens = sum(lengths)
    head, options = problem(tokens, width, vocabulary, seed, zero=0.3, every_term=every_term)
    options = of_kind(kind, options)
    if masked != "some":
        options["loss_mask"] = torch.full((tokens,), masked == "none")
    options["scale"] = torch.tensor([1 / (len(lengths) * n) for n in lengths for _ in range(n)], dtype=torch.float64)
    got, want = fused(head, options), plain(head, options)
    for name in ("loss", "dX", "dW"):
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-11)


@EVERY_KIND
def test_a_token_without_signal_is_exactly_zero_whatever_its_ratio_is(kind):
    signal = {"grad_logprobs" if kind == "given" else "advantages": torch.zeros(3)}
    logprobs = torch.full((3,), -1.0, requires_grad=True)
    old, sampler = torch.tensor([-1e4, 1e4, math.nan]), torch.tensor([-1e4, 1e4, -1.0])
    clip = {"clip": {"clip_low": 0.2, "clip_high": 0.2}, "cispo": {"clip_high": 0.2}}.get(kind, {})
    out = policy_loss(logprobs, old_logprobs=old, sampler_logprobs=sampler, tis_cap=2.0, denominator=1, kind=kind, **clip, **signal)
    out.loss.backward()
    assert out.loss == 0
    assert logprobs.grad.tolist() == [0, 0, 0]


def two_columns(entrance, temperature):
    """d loss / d logits of a reinforce token, A = 1, whose two logits give p = (1/4, 3/4) at that temperature; target 0."""
    logits = torch.tensor([[0.0, temperature * math.log(3)]], dtype=torch.float64, requires_grad=True)
    head = (logits, torch.eye(2, dtype=torch.float64)) if entrance == "hidden" else (logits,)
    loss_of = fused_linear_policy_loss if entrance == "hidden" else policy_loss_from_logits
    target, advantages = torch.zeros(1, dtype=torch.int64), torch.ones(1)
    loss_of(*head, target, temperature=temperature, advantages=advantages, kind="reinforce", denominator=1).loss.backward()
    return logits.grad[0].tolist()


@pytest.mark.parametrize("entrance", ["hidden", "logits"])
def test_the_softmax_term_has_the_opposite_sign_of_the_targets(entrance):
    assert two_columns(entrance, 1.0) == pytest.approx([-0.75, 0.75])


@pytest.mark.parametrize("entrance", ["hidden", "logits"])
def test_the_gradient_carries_one_over_the_temperature(entrance):
    assert two_columns(entrance, 0.5) == pytest.approx([-1.5, 1.5])


def test_a_bad_token_is_clipped_from_below_and_a_good_one_from_above():
    slopes = {(a, r): one(r, a, kind="clip", clip_low=0.1, clip_high=0.4)[1] for a in (1.0, -1.0) for r in (0.8, 0.95, 1.3, 1.5)}
    live = {key: slope != 0 for key, slope in slopes.items()}
    assert live == {(a, r): (r < 1.4 if a > 0 else r > 0.9) for a, r in slopes}


@EVERY_KIND
@pytest.mark.parametrize("entrance", ["hidden", "logits"])
def test_masked_rows_are_left_out_before_anything_is_exponentiated(kind, entrance):
    (hidden, weight, targets), options = problem(every_term=True)
    options = of_kind(kind, options)
    masked = ~options["loss_mask"]
    dirty = {name: options[name].masked_fill(masked, -1e4) for name in ("old_logprobs", "ref_logprobs", "sampler_logprobs")}

    def run(x, w, options):
        if entrance == "hidden":
            return fused_linear_policy_loss(x, w, targets, **options)
        return policy_loss_from_logits(x @ w.t(), targets, **options)

    want = value_and_grads(lambda x, w: run(x, w, options), hidden, weight)
    for garbage in (math.inf, math.nan):
        bad = dirty | {"scale": options["scale"].masked_fill(masked, garbage)}
        if entrance == "hidden":
            got = value_and_grads(lambda x, w, bad=bad: run(x, w, options | bad), hidden.masked_fill(masked[:, None], garbage), weight)
        else:
            leaf = (hidden @ weight.t()).masked_fill(masked[:, None], garbage).requires_grad_()
            out = policy_loss_from_logits(leaf, targets, **(options | bad))
            out.loss.backward()
            assert (leaf.grad[masked] == 0).all()
            got = {"loss": out.loss.detach(), "dX": leaf.grad @ weight, "dW": leaf.grad.t() @ hidden}
        assert_same(got, {name: want[name] for name in ("loss", "dX", "dW")}, 1e-15)
