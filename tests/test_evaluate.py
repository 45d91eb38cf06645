"""Held-out evaluation: the same responses every time, truncated ones never right, accuracies pooled by the number of problems."""

import pytest

from fastgrpo.evaluate import Evaluation, evaluate, evaluate_sets, request_seed, summary
from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.rewards import Grader
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.types import Prompt, Rollout, Sampling

PROMPTS = [Prompt(f"p{i}", tuple(range(40 + i, 44 + i)), "7") for i in range(6)]


class Recording(NativeEngine):
    """Keeps the last responses."""

    def generate(self, *args, **kwargs):
        self.last = super().generate(*args, **kwargs)
        return self.last


class Fixed:
    """Answers every prompt with one of the given rollouts."""

    def __init__(self, *rollouts):
        self.rollouts = rollouts

    def generate(self, prompts, n, sampling, seeds, on_finished=None):
        return [(self.rollouts[i % len(self.rollouts)],) for i in range(len(prompts))]


@pytest.fixture(scope="module")
def grader():
    with Grader("boxed", "fast") as grader:
        yield grader


def test_a_problems_response_is_the_same_every_time_and_in_any_company(tiny_model_dir, grader):
    engine = Recording(load_model(str(tiny_model_dir), "float32"), load_tokenizer(str(tiny_model_dir)))
    evaluate(engine, grader, PROMPTS, Sampling(1.0, 8), seed=3)
    first = [group[0].token_ids for group in engine.last]
    evaluate(engine, grader, PROMPTS[::-1][:4], Sampling(1.0, 8), seed=3)
    assert [group[0].token_ids for group in engine.last] == first[::-1][:4]
    evaluate(engine, grader, PROMPTS, Sampling(1.0, 8), seed=4)
    assert [group[0].token_ids for group in engine.last] != first


def test_accuracy_counts_right_answers_that_ended(grader):
    right, cut = (Rollout((1, 2, 3), (-1.0,) * 3, reason, r"\boxed{7}") for reason in ("stop", "length"))
    wrong = Rollout((1,), (-1.0,), "stop", "7")
    result = evaluate(Fixed(right, cut, wrong), grader, PROMPTS, Sampling(1.0, 8), seed=0)
    assert result == Evaluation(
        problems=6,
        accuracy=pytest.approx(1 / 3),
        formatted=pytest.approx(2 / 3),
        truncated=pytest.approx(1 / 3),
        length=pytest.approx(7 / 3),
        length_max=3,
    )


def test_sets_are_drawn_sampled_and_greedy(grader):
    temperatures = []

    class Engine(Fixed):
        def generate(self, prompts, n, sampling, seeds, on_finished=None):
            temperatures.append(sampling.temperature)
            return super().generate(prompts, n, sampling, seeds)

    engine = Engine(Rollout((1,), (-1.0,), "stop", ""))
    results = evaluate_sets(engine, grader, {"a": PROMPTS, "b": PROMPTS[:2]}, Sampling(0.6, 8), seed=0)
    assert temperatures == [0.6, 0.0, 0.6, 0.0]
    assert [(source, list(ways)) for source, ways in results.items()] == [("a", ["sampled", "greedy"]), ("b", ["sampled", "greedy"])]


def of(problems, sampled, greedy):
    return {"sampled": Evaluation(problems, sampled, 1, 0, 5, 9), "greedy": Evaluation(problems, greedy, 1, 0, 5, 9)}


def test_the_summary_pools_problems_not_sets():
    before, after = {"a": of(30, 0.1, 0.2), "b": of(10, 0.5, 0.6)}, {"a": of(30, 0.4, 0.4), "b": of(10, 0.8, 1.0)}
    got = summary(before, after, 7, 1.23456)
    assert got["accuracy_before"] == pytest.approx(0.2)
    assert got["accuracy_after"] == pytest.approx(0.5)
    assert (got["greedy_before"], got["greedy_after"]) == (pytest.approx(0.3), pytest.approx(0.55))
    assert (got["problems"], got["steps"], got["seconds"]) == (40, 7, 1.2)
    assert got["sets"] == {"a": {"before": 0.1, "after": 0.4}, "b": {"before": 0.5, "after": 0.8}}
    assert summary({}, {}, 7, 1.0)["accuracy_after"] is None


def test_seeds_are_fixed_by_their_parts_alone():
    assert request_seed(0, 1, "p", 2) == request_seed(0, 1, "p", 2) == 2195310128649602357  # on any machine, in any release
    assert len({request_seed(0, step, "p", j) for step in range(50) for j in range(50)}) == 2500
