"""Which runs a number is of."""

from fastgrpo.experiments.definition import Measure
from fastgrpo.experiments.results import curves_of, values_of

ROWS = {(arm, seed): [{"of": "step", "x": 1, "reward": 0.1 * seed}] for arm in ("a", "b") for seed in (1, 2)}


def test_a_measure_is_of_all_arms_or_of_those_that_it_names():
    every, one = Measure(label="", column="reward"), Measure(label="", column="reward", arms=["b"])
    assert values_of(every, ["a", "b"], ROWS) == {"a": {1: 0.1, 2: 0.2}, "b": {1: 0.1, 2: 0.2}}
    assert values_of(one, ["a", "b"], ROWS) == {"a": {}, "b": {1: 0.1, 2: 0.2}}
    assert curves_of(one, ROWS) == {"b-1": [(1, 0.1)], "b-2": [(1, 0.2)]}
