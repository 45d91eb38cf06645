"""An engine that answers badly, fails, or hangs: asked again, built again on the learner's weights, and given up in the end."""

import time
from types import SimpleNamespace

import pytest
from colocation import PROMPTS, improve, native_learner, pairs, requires_vllm, sample, seeds, tiny_engine, tiny_model

from fastgrpo.rollout.colocated import EngineError
from fastgrpo.rollout.parity import parity
from fastgrpo.rollout.push import PushError
from fastgrpo.rollout.states import IllegalTransition
from fastgrpo.rollout.supervised import EngineFailure, SupervisedEngine
from fastgrpo.types import Sampling

pytestmark = requires_vllm


@pytest.fixture(scope="module")
def engine():
    engine = tiny_engine(tiny_model("qwen tied"), "push")
    yield engine
    engine.close()


def other(answer, **changes) -> SimpleNamespace:
    fields = {"token_ids": answer.token_ids, "logprobs": answer.logprobs, "finish_reason": answer.finish_reason}
    return SimpleNamespace(**(fields | changes))


def entry(answer, logprob: float) -> list[dict]:
    return [{token: SimpleNamespace(logprob=logprob)} for token in answer.token_ids]


FAULTS = {
    "no tokens": lambda answer: [other(answer, token_ids=[], logprobs=[])],
    "0 log-probs": lambda answer: [other(answer, logprobs=None)],
    "0 log-probs for 16": lambda answer: [other(answer, logprobs=[{-1: None} for _ in answer.token_ids])],
    "a log-prob of nan": lambda answer: [other(answer, logprobs=entry(answer, float("nan")))],
    "a log-prob of -inf": lambda answer: [other(answer, logprobs=entry(answer, float("-inf")))],
    "token 299, outside": lambda answer: [other(answer, token_ids=[299], logprobs=entry(other(answer, token_ids=[299]), -1.0))],
    "2 answers": lambda answer: [answer, answer],
    "finish reason 'abort'": lambda answer: [other(answer, finish_reason="abort")],
    "no answer at all": lambda answer: None,
}


def plant(engine, monkeypatch, fault, times: int) -> list[int]:
    """Spoils the answer to the fourth request of each of the first `times` draws; returns how many were asked for in each draw."""
    draw, asked = engine.vllm.draw, []

    def spoiling(requests, sampling, take):
        asked.append(len(requests))

        def spoil(number, answers):
            if number == min(3, len(requests) - 1) and len(asked) <= times:
                answers = fault(answers[0])
            if answers is not None:
                take(number, answers)

        draw(requests, sampling, spoil)

    monkeypatch.setattr(engine.vllm, "draw", spoiling)
    return asked


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_answer_is_asked_for_once_more(engine, monkeypatch, name):
    want = sample(engine)
    asked, announced = plant(engine, monkeypatch, FAULTS[name], 1), []
    got = engine.generate(PROMPTS, 3, Sampling(1.0, 16), seeds(PROMPTS, 3), lambda i, j, rollout: announced.append((i, j)))
    assert asked == [18, 1]
    assert [[r.token_ids for r in group] for group in got] == [[r.token_ids for r in group] for group in want]
    assert sorted(announced) == [(i, j) for i in range(6) for j in range(3)]


@pytest.mark.parametrize("name", FAULTS)
def test_an_answer_that_is_bad_twice_is_an_error_that_names_it(engine, monkeypatch, name):
    plant(engine, monkeypatch, FAULTS[name], 2)
    with pytest.raises(EngineError, match=f"1 of 18 responses; prompt .*{name}"):
        sample(engine)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda items: items[:3] + items[4:], "1 of 26 are missing: model.layers.0.self_attn.k_proj.weight"),
        (lambda items: [("model.extra.weight", items[0][1]), *items], "model.extra.weight is unknown"),
        (lambda items: [*items[:2], items[1], *items[2:]], "came twice"),
        (lambda items: [(items[0][0], items[0][1][:-1]), *items[1:]], "has shape"),
    ],
)
def test_a_wrong_push_is_refused_and_a_right_one_repairs_it(engine, spoil, says):
    items = list(engine.model.named_parameters())
    with pytest.raises(PushError, match=says):
        engine.update_weights(spoil(items))
    with pytest.raises(IllegalTransition, match="cannot generate while its weights are half written"):
        sample(engine)
    engine.update_weights(items)
    assert parity(native_learner(engine.model).logprobs, pairs(sample(engine))).largest < 5e-5


@pytest.fixture
def supervised():
    """The real engine under supervision, weights shared; six seconds without a sign of life are a hang."""
    model = tiny_model("qwen tied")
    engine = SupervisedEngine(lambda: tiny_engine(model, "shared"), deadline=6.0, restarts=2)
    yield engine, native_learner(model)
    engine.close()


def fail_after(engine, monkeypatch, steps: int, failure) -> None:
    core = engine.engine.vllm.llm.llm_engine
    step, count = core.step, [0]

    def failing():
        count[0] += 1
        if count[0] == steps:
            failure()
        return step()

    monkeypatch.setattr(core, "step", failing)


def explode():
    raise ValueError("planted")


@pytest.mark.slow  # 8 s each: two engines are built
@pytest.mark.parametrize(
    ("failure", "said"), [(explode, "ValueError: planted"), (lambda: time.sleep(60), "EngineHang: no sign of life for 6")]
)
def test_a_failed_engine_is_built_again_and_only_the_unfinished_is_drawn_again(supervised, monkeypatch, failure, said):
    engine, learner = supervised
    improve(learner, sample(engine))
    engine.update_weights(learner.named_weights())
    sampling, announced = Sampling(1.0, 30, ("e", "t")), []
    want = engine.generate(PROMPTS, 3, sampling, seeds(PROMPTS, 3))
    lengths = sorted(len(rollout.token_ids) for group in want for rollout in group)
    assert lengths[0] < 20 < lengths[-1]
    fail_after(engine, monkeypatch, 20, failure)
    got = engine.generate(PROMPTS, 3, sampling, seeds(PROMPTS, 3), lambda i, j, rollout: announced.append((i, j)))
    assert [[r.token_ids for r in group] for group in got] == [[r.token_ids for r in group] for group in want]
    assert sorted(announced) == [(i, j) for i in range(6) for j in range(3)]
    assert engine.metrics()["failures"][0].startswith(said)
    assert parity(learner.logprobs, pairs(got)).largest < 5e-5


@pytest.mark.slow  # 10 s: three engines are built
def test_after_as_many_restarts_as_are_allowed_the_cause_is_told(supervised, monkeypatch):
    engine, _ = supervised
    monkeypatch.setattr("fastgrpo.rollout.vllm.InProcessVllm.draw", lambda *arguments: explode())
    with pytest.raises(EngineFailure, match=r"(ValueError: planted.*){3}") as failure:
        sample(engine)
    assert failure.value.exit_code == 1
    assert str(failure.value.__cause__) == "planted"


@pytest.mark.slow  # 8 s: two engines are built
def test_a_push_that_breaks_half_way_is_followed_by_a_new_engine_with_the_new_weights():
    model = tiny_model("qwen tied")
    engine, learner = SupervisedEngine(lambda: tiny_engine(model, "push"), deadline=6.0, restarts=1), native_learner(model)
    improve(learner, sample(engine))

    def breaking():
        for k, item in enumerate(learner.named_weights()):
            if k == 5:
                explode()
            yield item

    engine.update_weights(breaking())
    assert engine.metrics()["failures"] == ["ValueError: planted"]
    assert parity(learner.logprobs, pairs(sample(engine))).largest < 5e-5
    engine.close()
