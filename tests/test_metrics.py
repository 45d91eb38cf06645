"""Statistics add up the same however they were cut, and a step's report is what can be counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgrpo.metrics import merge, rollout_metrics, update_metrics
from fastgrpo.types import Grade, Prompt, Rollout, ScoredGroup

NAMES = ("loss", "kept", "entropy_sum", "ratio_max", "gap_max")
PARTS = st.lists(st.dictionaries(st.sampled_from(NAMES), st.integers(-1000, 1000)), max_size=12)


def test_merging_adds_and_takes_the_largest_of_maxima():
    parts = [{"loss": 1.5, "ratio_max": 0.5}, {"loss": -0.5, "ratio_max": 2.0, "kept": 3}, {"ratio_max": 1.0}]
    assert merge(parts) == {"loss": 1.0, "ratio_max": 2.0, "kept": 3}


def test_a_largest_value_below_zero_is_kept():
    assert merge([{"gap_max": -2.0}, {"gap_max": -3.0}]) == {"gap_max": -2.0}


def test_nothing_merges_to_nothing():
    assert merge([]) == merge([{}, {}]) == {}


@given(PARTS, st.lists(st.integers(0, 3), min_size=12, max_size=12), st.randoms(use_true_random=False))
def test_any_partition_in_any_order_merges_to_the_same(parts, ranks, rng):
    shares = [[part for part, owner in zip(parts, ranks, strict=False) if owner == rank] for rank in range(4)]
    rng.shuffle(shares)
    assert merge(merge(share) for share in shares) == merge(parts)


def group(rewards, advantages, responses, formatted=True, status="ok") -> ScoredGroup:
    """`responses` are (token ids, finish reason, grade)."""
    return ScoredGroup(
        Prompt("p", (1,), "1"),
        tuple(Rollout(ids, (-1.0,) * len(ids), finish, "") for ids, finish, _ in responses),
        tuple(Grade(grade, formatted, status) for _, _, grade in responses),
        rewards,
        advantages,
    )


MIXED = group((1.0, 0.0), (0.5, -0.5), [((1, 2), "stop", 1.0), ((3, 4, 5, 6), "stop", 0.0)])
RIGHT = group((1.0, 1.0), (0.0, 0.0), [((7,), "stop", 1.0), ((7,), "stop", 1.0)])
WRONG = group((0.0, 0.0), (0.0, 0.0), [((1,) * 6, "length", 0.0), ((2,) * 10, "length", 0.0)], formatted=False, status="timeout")
ALSO_WRONG = group((0.0, 0.0), (0.0, 0.0), [((1,), "stop", 0.0), ((2,), "stop", 0.0)], status="unparsable")


def test_a_step_reports_what_can_be_counted_by_hand():
    metrics = rollout_metrics([MIXED, RIGHT, WRONG, ALSO_WRONG])
    assert metrics == {
        "reward": 3 / 8,
        "rewards": {},
        "accuracy": 3 / 8,
        "formatted": 6 / 8,
        "length": 26 / 8,
        "length_right": 4 / 3,
        "length_wrong": 22 / 5,
        "length_max": 10,
        "truncated": 2 / 8,
        "zero_signal": 3 / 4,
        "zero_signal_right": 1 / 4,
        "zero_signal_wrong": 2 / 4,
        "duplicates": 1 / 8,  # 1 of the 2 responses of one group of four
        "response_tokens": 26,
        "grading": {"ok": 4, "timeout": 2, "crash": 0, "unparsable": 2, "unscorable": 0},
    }


def test_unscorable_responses_count_in_no_mean_but_as_themselves():
    grades = (
        Grade(1.5, True, "ok", {"verifier": 1.0, "bonus": 0.5}),
        Grade(None, True, "unscorable", {"verifier": 1.0, "bonus": None}),
        Grade(0.25, True, "ok", {"verifier": 0.0, "bonus": 0.25}),
    )
    rollouts = tuple(Rollout((token,), (-1.0,), "stop", "") for token in range(3))
    metrics = rollout_metrics([ScoredGroup(Prompt("p", (1,), "1"), rollouts, grades, (1.5, None, 0.25), (0.6, 0.0, -0.6))])
    assert metrics["reward"] == 1.75 / 2
    assert metrics["rewards"] == {"verifier": 2 / 3, "bonus": 0.375}
    assert metrics["accuracy"] == 2 / 3  # the verifier's, whatever other rewards say
    assert metrics["grading"] == {"ok": 2, "timeout": 0, "crash": 0, "unparsable": 0, "unscorable": 1}
    lost = (Grade(None, True, "unscorable"),) * 3
    metrics = rollout_metrics([ScoredGroup(Prompt("p", (1,), "1"), rollouts, lost, (None,) * 3, (0.0,) * 3)])
    assert (metrics["reward"], metrics["accuracy"]) == (None, 0)
    assert (metrics["zero_signal"], metrics["zero_signal_right"], metrics["zero_signal_wrong"]) == (1, 0, 0)


def test_lengths_of_right_and_wrong_are_absent_where_there_are_none():
    assert rollout_metrics([RIGHT])["length_wrong"] is None and rollout_metrics([RIGHT])["length_right"] == 1
    assert rollout_metrics([WRONG])["length_right"] is None and rollout_metrics([WRONG])["length_wrong"] == 8


def test_the_order_of_groups_and_responses_does_not_matter():
    turned = ScoredGroup(MIXED.prompt, MIXED.rollouts[::-1], MIXED.grades[::-1], MIXED.rewards[::-1], MIXED.advantages[::-1])
    assert rollout_metrics([WRONG, turned, RIGHT]) == rollout_metrics([MIXED, RIGHT, WRONG])


def test_an_update_divides_sums_by_the_tokens_that_were_computed():
    stats = {
        **{"loss": 0.25, "kept": 4, "entropy_sum": 6.0, "clip_low": 1, "clip_high": 2, "k1_sum": -2.0, "k3_sum": 3.0},
        **{
            "ratio_max": 1.5,
            "sampler_gap_sum": 0.2,
            "sampler_gap_max": 0.1,
            "sampler_k1_sum": 0.1,
            "sampler_far": 1,
            "tis_weight_sum": 5.0,
            "tis_capped": 3,
        },
    }
    assert update_metrics(stats, grad_norm=0.5, lr=1e-6) == {
        **{"loss": 0.25, "grad_norm": 0.5, "lr": 1e-6, "tokens": 4, "entropy": 1.5, "clip_low": 0.25, "clip_high": 0.5},
        **{
            "kl_k1": -0.5,
            "kl_k3": 0.75,
            "ratio_max": 1.5,
            "logprob_gap": 0.05,
            "logprob_gap_max": 0.1,
            "logprob_gap_k1": 0.025,
            "logprob_gap_far": 0.25,
            "tis_weight": 1.25,
            "tis_capped": 0.75,
        },
    }


def test_an_update_without_any_token_reports_zeros():
    metrics = update_metrics({}, grad_norm=0.0, lr=1e-6)
    assert metrics["tokens"] == 0 and metrics["loss"] == 0 and metrics["entropy"] == 0 and metrics["ratio_max"] == 1
    assert "ref_kl" not in metrics and "tis_weight" not in metrics


@pytest.mark.parametrize("name", ["ref_kl", "tis_weight", "tis_capped"])
def test_optional_terms_are_reported_when_they_were_computed(name):
    given_as = name if name == "tis_capped" else f"{name}_sum"
    assert update_metrics({"kept": 2, given_as: 3.0}, 0.0, 1.0)[name] == 1.5
