"""Rewards and advantages of one group, against numbers worked out by hand."""

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgrpo.advantages import group_advantages, group_rewards, overlong_penalty
from fastgrpo.types import Grade, Rollout

CENTRED, DIVIDED = ("dr_grpo", "grpo_no_std", "token_mean"), ("grpo", "grpo_no_length")
ONE_OF_EIGHT = (1.0, *[0.0] * 7)


def rollout(length: int, finish: str) -> Rollout:
    return Rollout((1,) * length, (-1.0,) * length, finish, "")


# 1 of 8: mean 1/8, and std sqrt((0.875**2 + 7 * 0.125**2) / 7) = sqrt(0.125) = 0.35355.
# 2 of 4: mean 1/2, std sqrt(4 * 0.25 / 3) = 1 / sqrt(3).   3 of 4: mean 3/4, std sqrt((3 / 16 + 9 / 16) / 3) = 1/2.
@pytest.mark.parametrize("loss_type", CENTRED)
@pytest.mark.parametrize(
    ("rewards", "advantages"),
    [
        (ONE_OF_EIGHT, (0.875, *[-0.125] * 7)),
        ((1, 0, 1, 0), (0.5, -0.5, 0.5, -0.5)),
        ((1, 1, 0, 1), (0.25, 0.25, -0.75, 0.25)),
        ((0.5, -0.5), (0.5, -0.5)),
    ],
)
def test_the_mean_of_the_group_is_subtracted(loss_type, rewards, advantages):
    assert group_advantages(rewards, loss_type) == pytest.approx(advantages, abs=1e-15)


@pytest.mark.parametrize("loss_type", DIVIDED)
@pytest.mark.parametrize(
    ("rewards", "advantages"),
    [
        (ONE_OF_EIGHT, (2.4749, *[-0.3536] * 7)),
        ((1, 0, 1, 0), (sqrt(3) / 2, -sqrt(3) / 2, sqrt(3) / 2, -sqrt(3) / 2)),
        ((1, 1, 0, 1), (0.5, 0.5, -1.5, 0.5)),
        ((0.5, -0.5), (sqrt(0.5), -sqrt(0.5))),
    ],
)
def test_grpo_divides_by_the_unbiased_spread_of_the_group(loss_type, rewards, advantages):
    assert group_advantages(rewards, loss_type) == pytest.approx(advantages, abs=5e-5)


def test_the_spread_of_a_nearly_equal_group_stays_above_1e_8():
    first, second = group_advantages((1e-8, 0.0), "grpo")  # 0.5e-8 over sqrt(0.5) * 1e-8 + 1e-8
    assert first == pytest.approx(0.5 / (sqrt(0.5) + 1)) and second == -first


@pytest.mark.parametrize("loss_type", CENTRED + DIVIDED)
@pytest.mark.parametrize("rewards", [(0.0,) * 8, (1.0,) * 8, (0.1,) * 3, (0.7,) * 7, (-0.3,) * 3])
def test_equal_rewards_give_exactly_zero(loss_type, rewards):
    assert group_advantages(rewards, loss_type) == (0.0,) * len(rewards)


@given(
    st.lists(st.integers(-8, 8).map(lambda n: n / 8), min_size=2, max_size=16).flatmap(
        lambda r: st.tuples(st.just(r), st.permutations(range(len(r))))
    )
)
def test_permuting_responses_permutes_their_advantages(case):
    rewards, order = case
    for loss_type in CENTRED + DIVIDED:
        advantages = group_advantages(rewards, loss_type)
        assert group_advantages([rewards[i] for i in order], loss_type) == pytest.approx([advantages[i] for i in order], abs=1e-12)


# Budget 10: the penalty begins after 8 tokens and is 1 at 10.
@pytest.mark.parametrize(
    ("truncation", "rewards"),
    [
        ("zero_reward", (1.0, 0.0, 1.0, 0.0, 0.0)),
        ("keep", (1.0, 0.0, 1.0, 1.0, 0.0)),
        ("mask", (1.0, 0.0, 1.0, 1.0, 0.0)),
        ("soft", (1.0, 0.0, 0.5, 0.0, -1.0)),
    ],
)
def test_truncated_responses_are_rewarded_by_the_rule(truncation, rewards):
    grades = [Grade(reward, True, "ok") for reward in (1.0, 0.0, 1.0, 1.0, 0.0)]
    lengths, finishes = (8, 3, 9, 10, 10), ("stop", "stop", "stop", "length", "length")
    rollouts = [rollout(length, finish) for length, finish in zip(lengths, finishes, strict=True)]
    assert group_rewards(grades, rollouts, truncation, max_new_tokens=10) == pytest.approx(rewards, abs=1e-12)


@pytest.mark.parametrize(("length", "penalty"), [(1, 0), (16384, 0), (18432, 0.5), (20480, 1), (19456, 0.75)])
def test_the_soft_penalty_of_the_dapo_paper(length, penalty):
    assert overlong_penalty(length, 20480) == pytest.approx(penalty, abs=1e-12)


@pytest.mark.parametrize("loss_type", CENTRED + DIVIDED)
def test_unscorable_responses_leave_the_others_advantages_as_if_they_were_absent(loss_type):
    first, lost, second, third, also_lost = group_advantages((1.0, None, 0.0, 0.5, None), loss_type)
    assert (lost, also_lost) == (0.0, 0.0)
    assert (first, second, third) == group_advantages((1.0, 0.0, 0.5), loss_type) == pytest.approx((first, -first, 0.0), abs=1e-15)
    assert first > 0


@pytest.mark.parametrize("loss_type", CENTRED + DIVIDED)
@pytest.mark.parametrize("rewards", [(None,) * 4, (1.0, None, None), (None, 0.7, 0.7, None)])
def test_fewer_than_two_different_rewards_give_no_advantage(loss_type, rewards):
    assert group_advantages(rewards, loss_type) == (0.0,) * len(rewards)


@pytest.mark.parametrize(
    ("truncation", "rewards"), [("zero_reward", (None, 0.0)), ("keep", (None, None)), ("mask", (None, None)), ("soft", (None, None))]
)
def test_only_zero_reward_gives_a_truncated_response_its_reward_without_a_grade(truncation, rewards):
    grades = [Grade(None, True, "unscorable")] * 2
    assert group_rewards(grades, [rollout(3, "stop"), rollout(10, "length")], truncation, max_new_tokens=10) == rewards
