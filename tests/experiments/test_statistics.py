"""Spreads, paired intervals, and the words that follow from them."""

import random
from statistics import fmean, stdev

import pytest

from fastgrpo.experiments.definition import Claim
from fastgrpo.experiments.statistics import difference, spread, t_975
from fastgrpo.experiments.verdict import judge

LABELS = {"a": "A", "b": "B"}


def verdict(first: list[float], second: list[float], margin: float = 0.0):
    claim = Claim(text="A is longer", measure="length", more="a", than="b", margin=margin)
    return judge(claim, {"length": {"a": dict(enumerate(first)), "b": dict(enumerate(second))}}, LABELS)


def test_a_paired_interval_is_student_s():
    found = difference({0: 5.0, 1: 7.0, 2: 9.0, 7: 100.0}, {0: 4.0, 1: 5.0, 2: 6.0, 9: 0.0})
    assert (found.mean, found.pairs) == (2.0, 3)  # seeds without a partner count for nothing
    half = 4.303 * stdev([1.0, 2.0, 3.0]) / 3**0.5
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = random.Random(0)
    held = [
        (found := difference({i: rng.gauss(1, 1) for i in range(5)}, {i: rng.gauss(0, 1) for i in range(5)})).low <= 1 <= found.high
        for _ in range(2000)
    ]
    assert 0.93 < fmean(held) < 0.97


def test_between_two_known_degrees_of_freedom_the_wider_interval_is_taken():
    assert t_975(12) == t_975(10) > t_975(15) and t_975(1000) == t_975(30)


def test_a_spread_of_one_seed_is_not_known():
    assert spread([2.0]).sd is None
    assert spread([1.0, 3.0]).sd == pytest.approx(2**0.5)


def test_the_whole_interval_decides():
    assert verdict([5, 6, 7], [1, 2, 3.1]).word == "supported"
    assert verdict([1, 2, 3.1], [5, 6, 7]).word == "contradicted"
    assert verdict([1, 5, 3], [2, 2, 3]).word == "not shown"


def test_a_margin_moves_what_is_asked():
    assert verdict([0.50, 0.51, 0.52], [0.505, 0.514, 0.526], margin=-0.02).word == "supported"
    assert verdict([0.50, 0.51, 0.52], [0.505, 0.514, 0.526]).word == "contradicted"
    assert verdict([5, 6, 7], [1, 2, 3.1], margin=10.0).word == "contradicted"


def test_one_seed_or_none_shows_nothing_however_large_the_difference():
    one = verdict([100.0], [0.0])
    assert one.word == "not shown" and "+100" in one.sentence and "no interval" in one.sentence
    assert verdict([], [1.0, 2.0]).word == "not shown"


def test_the_sentence_has_the_numbers():
    sentence = verdict([5, 6, 7], [1, 2, 3.1]).sentence
    assert sentence.startswith("supported: A is longer") and "A minus B" in sentence and "over 3 seeds" in sentence


def test_two_measures_of_one_arm_can_be_compared():
    claim = Claim(text="more", measure="length", more="a", than="a", against="other")
    found = judge(claim, {"length": {"a": {0: 5.0, 1: 6.0}}, "other": {"a": {0: 1.0, 1: 2.0}}}, LABELS)
    assert found.word == "supported" and "length of A minus other of A" in found.sentence
