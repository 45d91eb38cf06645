"""The objective on log-probs against numbers worked out by hand, against published golden values and against autograd."""

import json
import math
from pathlib import Path

import pytest
import torch
from kernel_problem import problem

from fastgrpo_kernels import fused_linear_policy_loss, policy_loss, reference

GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures" / "loss_golden.json").read_text())
CASES = pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['loss_type']}-tis-{case['tis_cap']}")


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def golden(name):
    return torch.tensor(GOLDEN[name], dtype=torch.float64)


def golden_options(case):
    """Keywords of policy_loss for a golden case, flattened to one dimension; the entries past a response's length are garbage."""
    lengths = torch.tensor(GOLDEN["lengths"])
    mask = torch.arange(8) < lengths[:, None]
    divisor = lengths if case["loss_type"] == "grpo" else torch.full((8,), GOLDEN["max_new_tokens"])
    spread = {"advantages": column(*case["advantages"]), "scale": 1 / (8 * divisor.double())}
    options = {name: value[:, None].expand(8, 8).reshape(-1) for name, value in spread.items()}
    options["old_logprobs"] = golden("old_logprob").masked_fill(~mask, torch.nan).reshape(-1)
    if case["tis_cap"] is not None:
        options |= {"tis_cap": case["tis_cap"], "sampler_logprobs": golden("sampler_logprob").masked_fill(~mask, 1e4).reshape(-1)}
    return options | {"loss_mask": mask.reshape(-1), "clip_low": GOLDEN["clip_eps"], "clip_high": GOLDEN["clip_eps"]}


@CASES
def test_loss_and_gradient_are_the_golden_ones(case):
    options = golden_options(case)
    logprobs = golden("new_logprob").reshape(-1).masked_fill(~options["loss_mask"], torch.nan).requires_grad_()
    out = policy_loss(logprobs, **options)
    out.loss.backward()
    assert abs(out.loss.item() - case["loss"]) < 1e-12
    torch.testing.assert_close(logprobs.grad.view(8, 8), column(*case["grad_new_logprob"]), rtol=0, atol=1e-12)


@CASES
def test_the_fused_loss_gives_the_golden_loss_and_gradients(case):
    options = golden_options(case)
    # Some of the golden log-probs are above 0; only differences count, so all of them move down by 2 nats.
    options |= {name: options[name] - 2 for name in ("old_logprobs", "sampler_logprobs") if name in options}
    new = golden("new_logprob").reshape(-1) - 2
    logits = torch.stack([new, torch.log1p(-new.exp())], dim=1)  # two columns that are a log-softmax already
    targets = torch.zeros(64, dtype=torch.int64)
    hidden, weight = logits.clone().requires_grad_(), torch.eye(2, dtype=torch.float64, requires_grad=True)
    out = fused_linear_policy_loss(hidden, weight, targets, temperature=1.0, **options)
    out.loss.backward()
    assert abs(out.loss.item() - case["loss"]) < 1e-12
    want_hidden, want_weight = logits.clone().requires_grad_(), torch.eye(2, dtype=torch.float64, requires_grad=True)
    chained = column(*case["grad_new_logprob"]).reshape(-1)
    reference.token_logprobs(want_hidden @ want_weight.t(), targets, 1.0).backward(chained)
    torch.testing.assert_close(hidden.grad, want_hidden.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(weight.grad, want_weight.grad, rtol=0, atol=1e-12)


def test_clip_counts_give_the_golden_clip_fraction():
    fractions = []
    for row, length in enumerate(GOLDEN["lengths"]):
        old, new = golden("old_logprob")[row, :length], golden("new_logprob")[row, :length]
        advantages = torch.full_like(old, GOLDEN["cases"][0]["advantages"][row])
        stats = policy_loss(new, old_logprobs=old, advantages=advantages, clip_low=0.2, clip_high=0.2, denominator=1).stats
        fractions.append((stats["clip_low"] + stats["clip_high"]).item() / length)
    assert abs(sum(fractions) / 8 - GOLDEN["cases"][0]["clip_fraction"]) < 1e-12


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),  # slope = dloss/dlogprob; clip to [0.8, 1.3], delta 2.0
    [
        (0.5, 2.0, -1.0, -1.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.6, 0.0),
        (3.0, 2.0, -2.6, 0.0),
        (0.5, -2.0, 1.6, 0.0),
        (1.1, -2.0, 2.2, 2.2),
        (1.5, -2.0, 3.0, 3.0),
        (3.0, -2.0, 4.0, 0.0),
        (1.0, 0.0, 0.0, 0.0),
    ],
)
def test_clip_and_two_sided_clip_by_hand(ratio, advantage, loss, slope):
    logprobs = column(-1.0).requires_grad_()
    old = column(-1.0 - math.log(ratio))
    out = policy_loss(logprobs, old_logprobs=old, advantages=column(advantage), clip_low=0.2, clip_high=0.3, delta=2.0, denominator=4)
    out.loss.backward()
    assert out.loss.item() == pytest.approx(loss / 4, abs=1e-15)
    assert logprobs.grad.item() == pytest.approx(slope / 4, abs=1e-15)
    assert out.stats["clip_high"] == (advantage > 0 and ratio > 1.3)
    assert out.stats["clip_low"] == (advantage < 0 and ratio < 0.8)


def test_without_delta_a_large_ratio_of_a_bad_token_is_not_capped():
    logprobs = column(0.0).requires_grad_()
    out = policy_loss(logprobs, old_logprobs=column(-math.log(3.0)), advantages=column(-2.0), clip_low=0.2, clip_high=0.2, denominator=1)
    out.loss.backward()
    assert (out.loss.item(), logprobs.grad.item()) == pytest.approx((6.0, 6.0))


def test_kl_to_the_reference_by_hand():
    logprobs = column(-1.0, -1.0, -50.0).requires_grad_()
    ref = column(-1.0 + math.log(2.0), -1.0 - math.log(4.0), -1.0)  # the last gap, 49 nats, is beyond the clamp
    out = policy_loss(
        logprobs, old_logprobs=None, advantages=torch.zeros(3), clip_low=0.2, clip_high=0.2, denominator=1, beta=0.5, ref_logprobs=ref
    )
    out.loss.backward()
    k3 = [2 - math.log(2) - 1, 0.25 + math.log(4) - 1, math.exp(40) - 41]
    assert out.loss.item() == pytest.approx(0.5 * sum(k3), rel=1e-14)
    assert out.stats["ref_kl_sum"].item() == pytest.approx(sum(k3), rel=1e-14)
    assert logprobs.grad.tolist() == pytest.approx([-0.5 * 1.0, -0.5 * -0.75, 0.0], abs=1e-14)


def test_truncated_importance_weight_by_hand_and_without_gradient():
    logprobs = column(-1.0, -1.0, -1.0).requires_grad_()
    sampler = column(-1.0 - math.log(3.0), -1.0 - math.log(1.5), -1.0 + math.log(2.0))  # weights 3, capped at 2, and 1.5 and 0.5
    options = {"clip_low": 0.2, "clip_high": 0.2, "denominator": 1, "sampler_logprobs": sampler, "tis_cap": 2.0}
    for old in (column(-1.0, -1.0, -1.0), None):  # None: the log-probs themselves are old
        logprobs.grad = None
        out = policy_loss(logprobs, old_logprobs=old, advantages=column(1.0, -4.0, 1.0), **options)
        out.loss.backward()
        assert out.loss.item() == pytest.approx(-2.0 * 1 + 1.5 * 4 - 0.5)
        assert logprobs.grad.tolist() == pytest.approx([-2.0, 6.0, -0.5])
        assert out.stats["tis_weight_sum"].item() == pytest.approx(4.0)
        assert out.stats["tis_capped"] == 1
        assert out.stats["sampler_gap_sum"].item() == pytest.approx(math.log(3) + math.log(1.5) + math.log(2))
        assert out.stats["sampler_gap_max"].item() == pytest.approx(math.log(3))
        assert out.stats["sampler_k1_sum"].item() == pytest.approx(-math.log(3) - math.log(1.5) + math.log(2))
        assert out.stats["sampler_far"] == 3


def test_rows_are_far_from_the_sampler_beyond_a_tenth_of_a_nat():
    sampler = column(-1.0, -1.0 + 0.09, -1.0 - 0.11, -1.0 + 0.2)
    given = {"old_logprobs": None, "sampler_logprobs": sampler, "clip_low": 0.2, "clip_high": 0.2, "denominator": 1}
    out = policy_loss(column(*[-1.0] * 4), advantages=column(*[1.0] * 4), **given)
    assert out.stats["sampler_far"] == 2


def test_sums_of_the_policy_kl_by_hand():
    out = policy_loss(
        column(-1.0, -2.0, -3.0),
        old_logprobs=column(-1.0 - math.log(2), -2.0, 1e4),
        advantages=column(1.0, 1.0, 1.0),
        loss_mask=torch.tensor([True, True, False]),
        clip_low=0.2,
        clip_high=0.2,
        denominator=10,
    )
    got = {name: value.item() for name, value in out.stats.items()}
    want = {"tokens": 2, "kept": 2, "loss_sum": -2.2, "clip_low": 0, "clip_high": 1, "ratio_max": 2}
    assert out.logprobs.tolist() == [-1, -2, 0]
    assert got == pytest.approx(want | {"k1_sum": -math.log(2), "k2_sum": math.log(2) ** 2 / 2, "k3_sum": 1 - math.log(2)})


def test_a_log_ratio_beyond_the_clamp_is_finite_and_has_no_gradient():
    logprobs = torch.zeros(3, requires_grad=True)
    old = torch.tensor([-1e4, 1e4, -1e4])
    out = policy_loss(logprobs, old_logprobs=old, advantages=torch.tensor([-1.0, 1.0, 0.0]), clip_low=0.2, clip_high=0.2, denominator=1)
    out.loss.backward()
    assert out.loss.item() == pytest.approx(math.exp(20), rel=1e-6)
    assert logprobs.grad.tolist() == [0, 0, 0]


def test_a_token_without_advantage_is_zero_even_where_its_ratio_is_not_a_number():
    logprobs = column(-1.0).requires_grad_()
    out = policy_loss(logprobs, old_logprobs=column(math.nan), advantages=column(0.0), clip_low=0.2, clip_high=0.2, denominator=1)
    out.loss.backward()
    assert (out.loss.item(), logprobs.grad.item()) == (0.0, 0.0)


def test_gradcheck_with_every_term():
    _, options = problem(tokens=12, every_term=True)
    del options["temperature"], options["entropy_coef"]
    logprobs = (options["old_logprobs"] + 0.03).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: policy_loss(values, **options).loss, (logprobs,))


def test_policy_loss_is_the_reference_with_every_term():
    _, options = problem(every_term=True)
    mask, scale, _ = options.pop("loss_mask"), options.pop("scale"), (options.pop("temperature"), options.pop("entropy_coef"))
    leaves = [(options["old_logprobs"] + 0.3 * torch.sin(torch.arange(40.0))).requires_grad_() for _ in range(2)]
    got = policy_loss(leaves[0], scale=scale, loss_mask=mask, **options).loss
    want = (scale * mask * reference.token_losses(leaves[1], **options)).sum()
    got.backward()
    want.backward()
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=0, atol=1e-12)
