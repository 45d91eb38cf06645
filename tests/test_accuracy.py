"""From graded responses to numbers: pass@k against enumeration, intervals against simulation, averages against the published ones."""

import random
from itertools import combinations
from statistics import fmean

import pytest

from fastgrpo.accuracy import Prediction, average, interval, measure, pass_at_k, pooled, powers_of_two


def prediction(id, sample=0, right=False, length=5, finish_reason="stop", formatted=True, grading="ok") -> Prediction:
    return Prediction("set", id, sample, "1 + 1?", "2", "text", length, finish_reason, formatted, grading, right)


def predictions(*outcomes: str) -> list[Prediction]:
    """One problem for each text of 1 (right) and 0."""
    return [prediction(f"p{i}", j, digit == "1") for i, text in enumerate(outcomes) for j, digit in enumerate(text)]


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer():
    for samples in range(1, 8):
        for right in range(samples + 1):
            outcomes = [i < right for i in range(samples)]
            for k in range(1, samples + 1):
                enumerated = fmean(any(subset) for subset in combinations(outcomes, k))
                assert pass_at_k(samples, right, k) == pytest.approx(enumerated, abs=1e-12)
    assert pass_at_k(1024, 1, 512) == pytest.approx(0.5)


def test_pass_at_k_of_a_set_is_the_mean_over_its_problems():
    found = measure(predictions("1000", "1100", "0000", "1111"))
    assert dict(found.pass_at) == pytest.approx({1: (1 / 4 + 2 / 4 + 0 + 1) / 4, 2: (3 / 6 + 5 / 6 + 0 + 1) / 4, 4: 3 / 4})
    assert found.accuracy == pytest.approx(found.pass_at[1]) == pytest.approx(7 / 16)
    assert (found.problems, found.samples) == (4, 4)


def test_pass_at_k_is_shown_for_powers_of_two_and_all_samples():
    assert [powers_of_two(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_lengths_forms_and_statuses_are_those_of_the_responses():
    found = measure(
        [
            prediction("a", length=10, finish_reason="length"),
            prediction("b", length=30, formatted=False, grading="timeout"),
            prediction("c", length=2, right=True),
            prediction("d", length=2, right=True),
        ]
    )
    assert (found.length, found.length_max, found.truncated, found.formatted, found.accuracy) == (11, 30, 0.25, 0.75, 0.5)
    assert found.grading == {"ok": 3, "timeout": 1}


def test_unequal_counts_of_predictions_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 2\] predictions each; every problem needs equally many"):
        measure(predictions("10", "1"))
    with pytest.raises(ValueError, match="problems have no predictions"):
        measure([])


@pytest.mark.parametrize(
    ("right", "problems", "low", "high"),
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (15, 30, 0.3315, 0.6685), (13, 30, 0.2738, 0.6080), (81, 263, 0.2553, 0.3662)],
)  # the last is Newcombe's (1998) example of the method; the others from the closed form, by hand
def test_one_response_a_problem_gives_wilsons_interval(right, problems, low, high):
    assert interval([1.0] * right + [0.0] * (problems - right), 1) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("samples", [1, 4])
def test_the_interval_of_all_or_none_right_is_not_a_point(samples):
    for problems in (1, 30, 675):
        low, high = interval([0.0] * problems, samples)
        assert low == 0 and 3 / (problems + 4) < high < 1
        assert interval([1.0] * problems, samples) == pytest.approx((1 - high, 1))


def test_the_interval_stays_between_0_and_1_and_holds_the_mean():
    draw = random.Random(0)
    for _ in range(300):
        samples, problems = draw.choice([1, 2, 8]), draw.randint(1, 40)
        share = draw.choice([0.01, 0.5, 0.99])
        shares = [sum(draw.random() < share for _ in range(samples)) / samples for _ in range(problems)]
        low, high = interval(shares, samples)
        assert 0 <= low <= fmean(shares) + 1e-12 and fmean(shares) - 1e-12 <= high <= 1 and low < high


def coverage(share_of_problem, samples: int, truth: float, rounds: int = 1500, problems: int = 100) -> float:
    """How often the interval holds the truth, over rounds of `problems` problems, each right with its own share."""
    draw, held = random.Random(1), 0
    for _ in range(rounds):
        shares = []
        for _ in range(problems):
            share = share_of_problem(draw)
            shares.append(sum(draw.random() < share for _ in range(samples)) / samples)
        low, high = interval(shares, samples)
        held += low <= truth <= high
    return held / rounds


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("samples", [1, 4])
def test_19_of_20_intervals_hold_the_truth(share, samples):
    assert 0.93 <= coverage(lambda draw: share, samples, share) <= 0.975


def test_they_do_so_where_problems_are_hard_or_easy():
    """A third of the problems is right 9 times in 10, the rest never: eight responses to each tell little more than one."""
    assert 0.93 <= coverage(lambda draw: 0.9 * (draw.random() < 1 / 3), 8, 0.3, rounds=800) <= 0.97


def test_responses_that_agree_count_as_one():
    agreeing = interval([1.0] * 30 + [0.0] * 70, 8)
    assert agreeing == pytest.approx(interval([1.0] * 30 + [0.0] * 70, 1))
    differing = interval([0.25, 0.375] * 50, 8)
    assert differing[1] - differing[0] < 0.5 * (agreeing[1] - agreeing[0])


def test_the_average_counts_sets_and_pooling_counts_problems():
    sets = {"a": measure(predictions("1", "0")), "b": measure(predictions("1", "1", "1", "1", "1", "0"))}
    assert average(sets) == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert pooled(sets) == pytest.approx(6 / 8)
    assert average({}) is None and pooled({}) is None
