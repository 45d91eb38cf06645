"""Every argument that cannot be right is refused at the door by a ValueError that names it."""

import math

import pytest
import torch

from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs, policy_loss, reference

FLOATS, INTEGERS = torch.zeros(4), torch.zeros(4, dtype=torch.int64)
HEAD = {"hidden": torch.zeros(4, 3), "weight": torch.zeros(5, 3), "targets": INTEGERS, "temperature": 1.0}
TOKENS = {"advantages": FLOATS, "denominator": 8, "old_logprobs": FLOATS, "clip_low": 0.2, "clip_high": 0.2}

OBJECTIVE = [
    ({"advantages": None}, "advantages"),
    ({"advantages": torch.zeros(4, 1)}, "advantages"),
    ({"advantages": FLOATS.to(torch.float16)}, "advantages"),
    ({"old_logprobs": torch.zeros(3)}, "old_logprobs"),
    ({"old_logprobs": FLOATS.bfloat16()}, "old_logprobs"),
    ({"loss_mask": FLOATS}, "loss_mask"),
    ({"loss_mask": torch.ones(5, dtype=torch.bool)}, "loss_mask"),
    ({"denominator": None}, "exactly one of scale .* got neither"),
    ({"scale": FLOATS}, "exactly one of scale .* got both"),
    ({"scale": torch.zeros(()), "denominator": None}, "scale"),
    ({"denominator": 0}, "denominator"),
    ({"denominator": math.nan}, "denominator"),
    ({"clip_low": -0.1}, "clip_low"),
    ({"clip_low": 1.1}, "clip_low"),
    ({"clip_high": math.nan}, "clip_high"),
    ({"delta": 1.2}, "delta"),
    ({"delta": math.nan}, "delta"),
    ({"beta": 0.1}, "ref_logprobs"),
    ({"beta": -0.1, "ref_logprobs": FLOATS}, "beta"),
    ({"beta": math.inf, "ref_logprobs": FLOATS}, "beta"),
    ({"ref_logprobs": INTEGERS}, "ref_logprobs"),
    ({"tis_cap": 2.0}, "sampler_logprobs"),
    ({"tis_cap": 0.0, "sampler_logprobs": FLOATS}, "tis_cap"),
    ({"sampler_logprobs": torch.zeros(4, 4)}, "sampler_logprobs"),
]
HEADS = [
    ({"hidden": torch.zeros(2, 2, 3)}, "hidden"),
    ({"hidden": torch.zeros(4, 3, dtype=torch.int64)}, "hidden"),
    ({"weight": torch.zeros(5, 4)}, "weight"),
    ({"weight": torch.zeros(0, 3)}, "weight"),
    ({"weight": torch.zeros(5, 3).bfloat16()}, "weight"),
    ({"weight": torch.zeros(5, 3, device="meta")}, "weight"),
    ({"targets": INTEGERS.int()}, "targets"),
    ({"targets": torch.zeros(5, dtype=torch.int64)}, "targets"),
    ({"targets": INTEGERS + 5}, r"targets must lie in 0\.\.4"),
    ({"targets": INTEGERS - 100}, "targets"),
    ({"temperature": 0.0}, "temperature"),
    ({"temperature": -1.0}, "temperature"),
    ({"temperature": math.nan}, "temperature"),
    ({"temperature": math.inf}, "temperature"),
    ({"temperature": torch.ones(())}, "temperature"),
]


@pytest.mark.parametrize(("bad", "message"), OBJECTIVE)
def test_policy_loss_refuses(bad, message):
    policy_loss(FLOATS, **TOKENS)
    with pytest.raises(ValueError, match=message):
        policy_loss(FLOATS, **(TOKENS | bad))


@pytest.mark.parametrize("bad", [torch.zeros(2, 2), torch.zeros(()), FLOATS.bfloat16()])
def test_policy_loss_refuses_logprobs_that_are_not_one_dimension_of_at_least_float32(bad):
    with pytest.raises(ValueError, match="logprobs"):
        policy_loss(bad, **TOKENS)


@pytest.mark.parametrize(("bad", "message"), [*OBJECTIVE, *HEADS, ({"entropy_coef": math.nan}, "entropy_coef")])
def test_fused_linear_policy_loss_refuses(bad, message):
    ones = TOKENS | {"advantages": FLOATS + 1}
    fused_linear_policy_loss(**HEAD, **ones)
    with pytest.raises(ValueError, match=message):
        fused_linear_policy_loss(**(HEAD | ones | bad))


@pytest.mark.parametrize(("bad", "message"), HEADS)
def test_linear_logprobs_refuses(bad, message):
    linear_logprobs(**HEAD)
    with pytest.raises(ValueError, match=message):
        linear_logprobs(**(HEAD | bad))


def test_the_decisions_of_the_experiment_have_no_default():
    for missing in ("temperature", "clip_low", "clip_high", "advantages"):
        options = {name: value for name, value in (HEAD | TOKENS).items() if name != missing}
        with pytest.raises(TypeError, match=missing):
            fused_linear_policy_loss(**options)


def test_the_reference_refuses_a_bad_temperature_and_two_divisors():
    with pytest.raises(ValueError, match="temperature"):
        reference.token_logprobs(torch.zeros(4, 5), INTEGERS, 0.0)
    with pytest.raises(ValueError, match="exactly one"):
        reference.policy_loss_from_logits(torch.zeros(4, 5), INTEGERS, temperature=1.0, scale=FLOATS, denominator=1)
