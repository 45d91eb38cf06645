"""Evaluation, in training and by itself: the same responses in any company, truncated ones never right, nothing drawn twice."""

import random
from dataclasses import replace

import pytest

from fastgrpo.accuracy import measure
from fastgrpo.evaluate import EvaluationFailed, chosen_metric, evaluate, evaluate_ways, request_seed, summary
from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.ranks import Ranks
from fastgrpo.rewards import Grader
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.types import Completion, Grade, Prompt, Sampling

PROMPTS = [Prompt(f"p{i}", tuple(range(40 + i, 44 + i)), "7") for i in range(6)]
RIGHT, CUT, WRONG = Completion(r"\boxed{7}", 3, "stop"), Completion(r"\boxed{7}", 3, "length"), Completion("7", 1, "stop")


@pytest.fixture(scope="module")
def grader():
    with Grader("boxed", "fast") as grader:
        yield grader


@pytest.fixture(scope="module")
def engine(tiny_model_dir):
    return NativeEngine(load_model(str(tiny_model_dir), "float32"), load_tokenizer(str(tiny_model_dir)))


class Scripted:
    """A sampler whose response is a function of prompt id and seed, in an order of its own; `calls` lists (prompt id, seed)."""

    def __init__(self, respond):
        self.respond, self.calls, self.temperatures = respond, [], []

    def generate(self, prompts, n, sampling, seeds, on_finished=None):
        self.temperatures.append(sampling.temperature)
        keys = [(i, j) for i in range(len(prompts)) for j in range(n)]
        found = {(i, j): self.respond(prompts[i].id, seeds[i][j]) for i, j in keys}
        self.calls += [(prompts[i].id, seeds[i][j]) for i, j in keys]
        for i, j in random.Random(0).sample(keys, len(keys)):
            on_finished(i, j, found[i, j])
        return [tuple(found[i, j] for j in range(n)) for i in range(len(prompts))]


def by_number(*responses):
    return Scripted(lambda id, seed: responses[int(id[1:]) % len(responses)])


def texts(predictions) -> dict:
    return {(row.id, row.sample): row.text for row in predictions}


def test_a_problems_responses_are_the_same_in_any_company_and_order(engine, grader):
    first = texts(evaluate(engine, grader, "set", PROMPTS, 2, Sampling(1.0, 8), seed=3))
    assert len(set(first.values())) == 12
    fewer = texts(evaluate(engine, grader, "other", PROMPTS[::-1][:4], 2, Sampling(1.0, 8), seed=3))
    assert fewer == {key: text for key, text in first.items() if key[0] not in ("p0", "p1")}
    single = texts(evaluate(engine, grader, "set", PROMPTS, 1, Sampling(1.0, 8), seed=3))
    assert single == {key: text for key, text in first.items() if key[1] == 0}
    assert texts(evaluate(engine, grader, "set", PROMPTS, 2, Sampling(1.0, 8), seed=4)) != first


def test_rows_come_in_the_order_of_prompts_and_samples(grader):
    sampler = Scripted(lambda id, seed: Completion(f"{id} {seed}", 2, "stop"))
    rows = evaluate(sampler, grader, "set", PROMPTS, 3, Sampling(1.0, 8), seed=0)
    assert [(row.id, row.sample) for row in rows] == [(prompt.id, j) for prompt in PROMPTS for j in range(3)]
    assert [row.text for row in rows] == [f"{id} {seed}" for id, seed in sampler.calls]
    assert {row.set for row in rows} == {"set"} and len({row.text for row in rows}) == 18


def test_a_truncated_answer_is_wrong_unless_it_is_kept(grader):
    rows = evaluate(by_number(RIGHT, CUT, WRONG), grader, "set", PROMPTS, 1, Sampling(1.0, 8), seed=0)
    assert [row.right for row in rows] == [True, False, False] * 2
    assert [row.formatted for row in rows] == [True, True, False] * 2
    kept = evaluate(by_number(RIGHT, CUT, WRONG), grader, "set", PROMPTS, 1, Sampling(1.0, 8), seed=0, keep_truncated=True)
    assert [row.right for row in kept] == [True, True, False] * 2
    assert measure(rows).truncated == measure(kept).truncated == pytest.approx(1 / 3)


def test_known_responses_are_graded_but_not_drawn_again(grader):
    def sampler():
        return Scripted(lambda id, seed: Completion(rf"\boxed{{{7 + seed % 2}}} {seed}", 4, "stop"))

    uninterrupted = evaluate(sampler(), grader, "set", PROMPTS, 4, Sampling(1.0, 8), seed=5)
    had = [row for row in uninterrupted if row.id in ("p0", "p4") or (row.id, row.sample) in (("p2", 1), ("p2", 2), ("p3", 3))]
    known = {(row.id, row.sample): Completion(row.text, row.length, row.finish_reason) for row in had}
    resumed, heard = sampler(), []
    again = evaluate(
        resumed, grader, "set", PROMPTS, 4, Sampling(1.0, 8), seed=5, known=known, on_response=lambda key, response: heard.append(key)
    )
    assert again == uninterrupted and {row.right for row in again} == {True, False}
    missing = {(row.id, row.sample) for row in uninterrupted} - set(known)
    assert set(heard) == missing and len(heard) == len(resumed.calls) == len(missing) == 13
    nothing = sampler()
    everything = {(row.id, row.sample): Completion(row.text, row.length, row.finish_reason) for row in uninterrupted}
    assert evaluate(nothing, grader, "set", PROMPTS, 4, Sampling(1.0, 8), seed=5, known=everything) == uninterrupted
    assert nothing.calls == []


def test_grading_goes_on_while_others_are_drawn():
    events = []

    class Listening:
        def submit(self, key, text, gold):
            events.append("submitted")

        def results(self):
            events.append("results")
            return {(prompt.id, 0): Grade(0.0, False, "ok") for prompt in PROMPTS}

    class OneByOne(Scripted):
        def generate(self, prompts, n, sampling, seeds, on_finished=None):
            for i in range(len(prompts)):
                events.append("drawn")
                on_finished(i, 0, WRONG)

    evaluate(OneByOne(None), Listening(), "set", PROMPTS, 1, Sampling(1.0, 8), seed=0)
    assert events == ["drawn", "submitted"] * 6 + ["results"]


def test_sets_are_drawn_in_each_way_with_seeds_of_their_own(grader):
    sampler = by_number(RIGHT, WRONG)
    after = []

    def ways(sets, ways):
        return evaluate_ways(sampler, grader, sets, ways, Sampling(0.6, 8), 0, Ranks(), lambda: after.append(len(sampler.temperatures)))

    results, rows = ways({"a": PROMPTS, "b": PROMPTS[:1]}, ("sampled", "greedy"))
    assert after == [1, 2, 3, 4]  # a run may be stopped after each set
    assert sampler.temperatures == [0.6, 0.6, 0.0, 0.0]
    assert {way: {name: found.accuracy for name, found in sets.items()} for way, sets in results.items()} == {
        way: {"a": 0.5, "b": 1.0} for way in ("sampled", "greedy")
    }
    assert {way: len(found) for way, found in rows.items()} == {"sampled": 7, "greedy": 7}
    assert list(ways({"a": PROMPTS}, ("greedy",))[0]) == ["greedy"]


def of(problems, accuracy):
    rows = evaluate(by_number(WRONG), Grader("boxed", "fast"), "set", PROMPTS, 1, Sampling(1.0, 8), seed=0)
    return replace(measure(rows), problems=problems, accuracy=accuracy)


def test_the_summary_pools_problems_not_sets():
    before = {"sampled": {"a": of(30, 0.1), "b": of(10, 0.5)}, "greedy": {"a": of(30, 0.2), "b": of(10, 0.6)}}
    after = {"sampled": {"a": of(30, 0.4), "b": of(10, 0.8)}, "greedy": {"a": of(30, 0.4), "b": of(10, 1.0)}}
    got = summary(before, after, 7, 1.23456)
    assert (got["accuracy_before"], got["accuracy_after"]) == (pytest.approx(0.2), pytest.approx(0.5))
    assert (got["greedy_before"], got["greedy_after"]) == (pytest.approx(0.3), pytest.approx(0.55))
    assert (got["greedy_average_before"], got["greedy_average_after"]) == (pytest.approx(0.4), pytest.approx(0.7))
    assert (got["problems"], got["steps"], got["seconds"]) == (40, 7, 1.2)
    assert got["sets"]["sampled"] == {"a": {"before": 0.1, "after": 0.4}, "b": {"before": 0.5, "after": 0.8}}
    assert summary({}, {}, 7, 1.0)["accuracy_after"] is None


def test_the_metric_that_chooses_the_best_checkpoint_is_the_one_named():
    found = {"sampled": {"a": of(30, 0.1), "b": of(10, 0.5)}, "greedy": {"a": of(30, 0.2), "b": of(10, 0.6)}}
    got = {name: chosen_metric(found, name) for name in ("sampled_average", "sampled_pooled", "greedy_average", "greedy_pooled")}
    assert got == pytest.approx({"sampled_average": 0.3, "sampled_pooled": 0.2, "greedy_average": 0.4, "greedy_pooled": 0.3})
    assert chosen_metric({"greedy": {"a": of(30, 0.2)}}, "sampled_pooled") is None


def test_seeds_are_fixed_by_their_parts_alone():
    assert request_seed(0, 1, "p", 2) == request_seed(0, 1, "p", 2) == 2195310128649602357  # on any machine, in any release
    assert len({request_seed(0, step, "p", j) for step in range(50) for j in range(50)}) == 2500


def test_a_share_that_fails_fails_the_evaluation_with_its_cause_and_leaves_no_answers_behind(grader):
    class Broken(Scripted):
        def generate(self, prompts, n, sampling, seeds, on_finished=None):
            on_finished(0, 0, RIGHT)
            raise RuntimeError("the engine died")

    with pytest.raises(EvaluationFailed, match="a: RuntimeError: the engine died") as failed:
        evaluate_ways(Broken(None), grader, {"a": PROMPTS}, ("greedy",), Sampling(0.6, 8), 0, Ranks(), lambda: None)
    assert isinstance(failed.value.__cause__, RuntimeError)
    assert grader.results() == {}
