import math
from itertools import pairwise

import pytest
import torch
from kernel_device import seeded
from kernel_problem import problem

from fastgrpo_kernels import fused_linear_policy_loss, gspo_gradients, linear_logprobs, policy_loss, reference, segment_sum

BOUNDS = torch.tensor([0, 7, 7, 19, 40])  # the second sequence is empty


def test_sums_are_those_of_each_sequence_and_differentiate():
    values = torch.randn(40, dtype=torch.float64, generator=seeded(1), requires_grad=True)
    for bounds in (BOUNDS, BOUNDS.int()):
        want = torch.stack([values[start:end].sum() for start, end in pairwise(BOUNDS)])
        torch.testing.assert_close(segment_sum(values, bounds), want, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda v: segment_sum(v, BOUNDS), (values,))


def test_sums_are_added_up_in_float64_and_a_sequence_does_not_disturb_the_next():
    values = torch.tensor([1e8, 1.0, -1e8, math.nan, 1e-3, 1e-3])
    got = segment_sum(values, torch.tensor([0, 3, 4, 6]))
    assert (got[0], got[2]) == (1.0, values[4] * 2)
    assert got[1].isnan()


def test_no_sequences_and_no_tokens_give_no_sums():
    assert segment_sum(torch.zeros(0), torch.tensor([0])).shape == (0,)
    assert segment_sum(torch.zeros(0), torch.tensor([0, 0])).tolist() == [0]


def gspo_problem(seed=0):
    random = seeded(seed)
    old = -torch.rand(40, dtype=torch.float64, generator=random)
    shift = torch.tensor([0.3, 0.0, -0.3, 0.05], dtype=torch.float64).repeat_interleave(BOUNDS.diff())
    new = old + shift + 0.01 * torch.randn(40, dtype=torch.float64, generator=random)
    mask = torch.rand(40, generator=random) < 0.8
    return new, old, mask


@pytest.mark.parametrize("signs", [(1.0, 1.0, 1.0), (-1.0, -1.0, -1.0), (1.0, -1.0, 0.0), (-2.0, 2.0, 0.5)])
def test_gspo_gradients_are_those_of_the_clipped_sequence_ratio(signs):
    new, old, mask = gspo_problem()
    of_sequence = torch.tensor([signs[0], 9.0, signs[1], signs[2]], dtype=torch.float64)
    advantages = of_sequence.repeat_interleave(BOUNDS.diff())
    counts = segment_sum(mask.double(), BOUNDS)
    leaf = new.clone().requires_grad_()
    s = reference.sequence_ratios(leaf, old, BOUNDS, mask)
    objective = torch.maximum(-of_sequence * s, -of_sequence * s.clamp(0.9, 1.2))
    (objective[counts > 0].sum() / 4).backward()
    dirty = new.masked_fill(~mask, math.nan)
    g = gspo_gradients(dirty, old, advantages, BOUNDS, mask, clip_low=0.1, clip_high=0.2)
    scale = (1 / (4 * counts.clamp(min=1))).repeat_interleave(BOUNDS.diff())
    torch.testing.assert_close(scale * g, leaf.grad, rtol=0, atol=1e-15)


def test_gspo_off_policy_reaches_the_head_as_kind_given():
    (hidden, weight, targets), options = problem()
    advantages = torch.tensor([1.0, 0.0, -1.0, 0.5], dtype=torch.float64).repeat_interleave(BOUNDS.diff())
    mask, old = options["loss_mask"], options["old_logprobs"]
    scale = (1 / (4 * segment_sum(mask.double(), BOUNDS).clamp(min=1))).repeat_interleave(BOUNDS.diff())
    got, want = ([tensor.clone().requires_grad_() for tensor in (hidden, weight)] for _ in range(2))
    with torch.no_grad():
        logprobs, _ = linear_logprobs(hidden, weight, targets, 0.8)
    g = gspo_gradients(logprobs, old, advantages, BOUNDS, mask, clip_low=0.9, clip_high=9.0)
    given = {"kind": "given", "grad_logprobs": g, "scale": scale, "temperature": 0.8, "loss_mask": mask}
    fused_linear_policy_loss(*got, targets, **given).loss.backward()
    s = reference.sequence_ratios(reference.token_logprobs(want[0] @ want[1].t(), targets, 0.8), old, BOUNDS, mask)
    (-(s * torch.tensor([1.0, 0.0, -1.0, 0.5], dtype=torch.float64)).sum() / 4).backward()
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)


def test_gspo_on_policy_is_kind_reinforce():
    new, _, mask = gspo_problem()
    advantages = torch.linspace(-1, 1, 4, dtype=torch.float64).repeat_interleave(BOUNDS.diff())
    leaf = new.clone().requires_grad_()
    policy_loss(leaf, old_logprobs=None, advantages=advantages, kind="reinforce", denominator=1, loss_mask=mask).loss.backward()
    g = gspo_gradients(new, new, advantages, BOUNDS, mask, clip_low=0.1, clip_high=0.1)
    assert torch.equal(leaf.grad, g)
