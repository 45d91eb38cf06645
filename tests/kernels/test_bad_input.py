"""Every argument that cannot be right is refused at the door by a ValueError that names it."""

import math

import kernel_device  # noqa: F401  first: it says where tensors are made
import pytest
import torch

from fastgrpo_kernels import (
    fused_linear_policy_loss,
    gspo_gradients,
    linear_logprobs,
    policy_loss,
    policy_loss_from_logits,
    reference,
    segment_sum,
)

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
    ({"kind": "ppo"}, "kind must be one of clip, cispo, sapo, reinforce, given"),
    ({"kind": "cispo"}, "clip_low is not read by kind = 'cispo'"),
    ({"kind": "cispo", "clip_low": None, "clip_high": None}, "clip_high must be given"),
    ({"kind": "sapo"}, "clip_low is not read"),
    ({"kind": "cispo", "clip_low": None, "delta": 3.0}, "delta is not read"),
    ({"kind": "sapo", "clip_low": None, "clip_high": None, "tau_pos": 0.0}, "tau_pos"),
    ({"kind": "sapo", "clip_low": None, "clip_high": None, "tau_neg": math.nan}, "tau_neg"),
    ({"clip_low": None}, "clip_low must be given"),
    ({"clip_high": None}, "clip_high must be given"),
    ({"grad_logprobs": FLOATS}, "grad_logprobs must be None"),
    ({"kind": "given", "clip_low": None, "clip_high": None}, "advantages must be None"),
    ({"kind": "given", "clip_low": None, "clip_high": None, "advantages": None}, "grad_logprobs"),
    ({"rows": INTEGERS, "loss_mask": FLOATS == 0}, "rows and loss_mask"),
    ({"rows": FLOATS}, "rows must have shape"),
    ({"rows": [0, 1]}, "rows must have shape"),
    ({"rows": torch.tensor([1, 1])}, r"rows must increase within 0\.\.3"),
    ({"rows": torch.tensor([2, 4])}, "rows must increase"),
    ({"rows": torch.tensor([-1, 2])}, "rows must increase"),
]
SCALING = [
    ({"targets": INTEGERS.int()}, "targets"),
    ({"targets": torch.zeros(5, dtype=torch.int64)}, "targets"),
    ({"targets": INTEGERS + 5}, r"targets must lie in 0\.\.4"),
    ({"targets": INTEGERS - 100}, "targets"),
    ({"targets": INTEGERS + 4, "vocab_size": 4}, r"targets must lie in 0\.\.3"),
    ({"temperature": 0.0}, "temperature"),
    ({"temperature": -1.0}, "temperature"),
    ({"temperature": math.nan}, "temperature"),
    ({"temperature": math.inf}, "temperature"),
    ({"temperature": torch.ones(())}, "temperature"),
    ({"temperature": torch.ones(3)}, "temperature"),
    ({"temperature": torch.ones(4).bfloat16()}, "temperature"),
    ({"temperature": torch.tensor([1.0, 0.0, 1.0, 1.0])}, "temperature"),
    ({"temperature": torch.tensor([1.0, math.nan, 1.0, 1.0])}, "temperature"),
    ({"logit_scale": 0.0}, "logit_scale"),
    ({"softcap": 0.0}, "softcap"),
    ({"softcap": math.inf}, "softcap"),
    ({"vocab_size": 0}, "vocab_size"),
    ({"vocab_size": 6}, "vocab_size"),
    ({"vocab_size": 4.0}, "vocab_size"),
]
HEADS = [
    *SCALING,
    ({"bias": torch.zeros(4)}, "bias"),
    ({"bias": torch.zeros(5).bfloat16()}, "bias"),
    ({"bias": 1.0}, "bias"),
    ({"hidden": torch.zeros(2, 2, 3)}, "hidden"),
    ({"hidden": torch.zeros(4, 3, dtype=torch.int64)}, "hidden"),
    ({"weight": torch.zeros(5, 4)}, "weight"),
    ({"weight": torch.zeros(0, 3)}, "weight"),
    ({"weight": torch.zeros(5, 3).bfloat16()}, "weight"),
    ({"weight": torch.zeros(5, 3, device="meta")}, "weight"),
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


LOGITS = {"logits": torch.zeros(4, 5), "targets": INTEGERS, "temperature": 1.0}
BAD_LOGITS = [
    ({"logits": torch.zeros(4)}, "logits"),
    ({"logits": torch.zeros(4, 0)}, "logits"),
    ({"logits": torch.zeros(4, 5, dtype=torch.int64)}, "logits"),
    ({"entropy_coef": math.inf}, "entropy_coef"),
]


@pytest.mark.parametrize(("bad", "message"), [*OBJECTIVE, *SCALING, *BAD_LOGITS])
def test_policy_loss_from_logits_refuses(bad, message):
    policy_loss_from_logits(**LOGITS, **TOKENS)
    with pytest.raises(ValueError, match=message):
        policy_loss_from_logits(**(LOGITS | TOKENS | bad))


SEQUENCES = torch.tensor([0, 1, 4])


@pytest.mark.parametrize(
    ("values", "cu_seqlens", "message"),
    [
        (INTEGERS, SEQUENCES, "values"),
        (torch.zeros(()), SEQUENCES, "values"),
        (FLOATS, [0, 4], "cu_seqlens"),
        (FLOATS, FLOATS, "cu_seqlens"),
        (FLOATS, SEQUENCES[:0], "cu_seqlens"),
        (FLOATS, torch.tensor([0, 3]), "cu_seqlens must rise from 0 to 4"),
        (FLOATS, torch.tensor([1, 4]), "cu_seqlens"),
        (FLOATS, torch.tensor([0, 3, 2, 4]), "cu_seqlens"),
    ],
)
def test_segment_sum_refuses(values, cu_seqlens, message):
    with pytest.raises(ValueError, match=message):
        segment_sum(values, cu_seqlens)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"old_logprobs": None}, "old_logprobs"),
        ({"advantages": torch.zeros(2)}, "advantages"),
        ({"loss_mask": INTEGERS}, "loss_mask"),
        ({"cu_seqlens": torch.tensor([0, 5])}, "cu_seqlens"),
        ({"clip_low": 2.0}, "clip_low"),
        ({"clip_high": -1.0}, "clip_high"),
    ],
)
def test_gspo_gradients_refuses(bad, message):
    good = {"old_logprobs": FLOATS, "advantages": FLOATS, "cu_seqlens": SEQUENCES, "loss_mask": None, "clip_low": 0.1, "clip_high": 0.1}
    gspo_gradients(FLOATS, **good)
    with pytest.raises(ValueError, match=message):
        gspo_gradients(FLOATS, **(good | bad))


@pytest.mark.parametrize(("bad", "message"), HEADS)
def test_linear_logprobs_refuses(bad, message):
    linear_logprobs(**HEAD)
    with pytest.raises(ValueError, match=message):
        linear_logprobs(**(HEAD | bad))


def test_the_decisions_of_the_experiment_have_no_default():
    for missing in ("temperature", "clip_low", "clip_high", "advantages"):
        options = {name: value for name, value in (HEAD | TOKENS).items() if name != missing}
        with pytest.raises((TypeError, ValueError), match=missing):
            fused_linear_policy_loss(**options)


def test_the_reference_refuses_a_bad_temperature_and_two_divisors():
    with pytest.raises(ValueError, match="temperature"):
        reference.token_logprobs(torch.zeros(4, 5), INTEGERS, 0.0)
    with pytest.raises(ValueError, match="exactly one"):
        reference.policy_loss_from_logits(torch.zeros(4, 5), INTEGERS, temperature=1.0, scale=FLOATS, denominator=1)
