"""The constant factor of each token in the loss, against numbers worked out by hand."""

import pytest

from fastgrpo.loss import token_scales

LENGTHS = (2, 4, 10, 4)  # B = 4, 20 tokens
SHOWN = (False,) * 4
BUDGET = 10

# B L = 40;  B |o_i| = 8, 16, 40, 16;  tokens = 20.
EXPECTED = {
    "dr_grpo": (1 / 40, 1 / 40, 1 / 40, 1 / 40),
    "grpo_no_length": (1 / 40, 1 / 40, 1 / 40, 1 / 40),
    "grpo": (1 / 8, 1 / 16, 1 / 40, 1 / 16),
    "grpo_no_std": (1 / 8, 1 / 16, 1 / 40, 1 / 16),
    "token_mean": (1 / 20, 1 / 20, 1 / 20, 1 / 20),
}


@pytest.mark.parametrize("loss_type", EXPECTED)
def test_each_type_has_its_divisor(loss_type):
    assert token_scales(loss_type, LENGTHS, SHOWN, BUDGET) == pytest.approx(EXPECTED[loss_type], rel=1e-15)


@pytest.mark.parametrize("loss_type", [name for name in EXPECTED if name != "token_mean"])
def test_a_masked_response_weighs_nothing_and_still_counts_in_the_batch(loss_type):
    first, second, _, last = EXPECTED[loss_type]
    assert token_scales(loss_type, LENGTHS, (False, False, True, False), BUDGET) == pytest.approx((first, second, 0, last), rel=1e-15)


def test_token_mean_counts_no_masked_token():
    assert token_scales("token_mean", LENGTHS, (False, False, True, False), BUDGET) == pytest.approx((0.1, 0.1, 0, 0.1), rel=1e-15)


def test_one_more_masked_response_leaves_token_mean_alone_and_thins_the_others():
    for loss_type in EXPECTED:
        before = token_scales(loss_type, LENGTHS, SHOWN, BUDGET)
        after = token_scales(loss_type, (*LENGTHS, 10), (*SHOWN, True), BUDGET)
        factor = 1 if loss_type == "token_mean" else 4 / 5
        assert after == pytest.approx([*(scale * factor for scale in before), 0], rel=1e-15), loss_type


@pytest.mark.parametrize("loss_type", EXPECTED)
def test_responses_that_are_all_masked_weigh_nothing(loss_type):
    assert token_scales(loss_type, LENGTHS, (True,) * 4, BUDGET) == [0.0] * 4


def test_an_unknown_type_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"'ppo' is none of dr_grpo, grpo, grpo_no_std, grpo_no_length, token_mean"):
        token_scales("ppo", LENGTHS, SHOWN, BUDGET)
