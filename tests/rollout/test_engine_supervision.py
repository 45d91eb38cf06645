"""Supervision and the sentinel with a native engine that is made to fail: what needs no vLLM to be shown."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch
from colocation import PROMPTS, improve, native_learner, pairs, sample, seeds, tiny_model
from conftest import byte_tokenizer

from fastgrpo.errors import HealthError, InputError, SetupError
from fastgrpo.rollout import process_state
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.rollout.parity import Parity, parity, require_parity, spread
from fastgrpo.rollout.process_state import ALLOCATOR_VARIABLES, contained, require_fixed_segments
from fastgrpo.rollout.supervised import EngineFailure, SupervisedEngine
from fastgrpo.types import Sampling


class Failing(NativeEngine):
    """Fails after so many responses: raises, hangs, or does so at every call."""

    def __init__(self, model, failures: list):
        super().__init__(model, byte_tokenizer())
        self.failures, self.closed = failures, False

    def generate(self, prompts, n, sampling, seeds, on_finished=None):
        ended = []

        def finished(i, j, rollout):
            on_finished(i, j, rollout)
            ended.append((i, j))
            if len(ended) == 5 and self.failures:
                self.failures.pop(0)()

        return super().generate(prompts, n, sampling, seeds, finished)

    def close(self):
        self.closed = True


def explode():
    raise ValueError("planted")


def supervised(failures: list, restarts: int = 2) -> tuple[SupervisedEngine, list[Failing]]:
    model, built = tiny_model("qwen tied"), []

    def build():
        built.append(Failing(model, failures))
        return built[-1]

    return SupervisedEngine(build, deadline=2.0, restarts=restarts), built


def hang():
    time.sleep(5)


@pytest.mark.parametrize("failures", [[explode], [hang], [explode, explode]], ids=["raise", "hang", "raise twice"])
def test_after_a_failure_only_what_had_not_ended_is_drawn_again(failures):
    want = sample(NativeEngine(tiny_model("qwen tied"), byte_tokenizer()))
    engine, built = supervised(list(failures))
    count, announced = len(failures), []
    got = engine.generate(PROMPTS, 3, Sampling(1.0, 16), seeds(PROMPTS, 3), lambda i, j, rollout: announced.append((i, j)))
    if hang in failures:
        time.sleep(4)  # it wakes up: nobody listens to it any more
    assert [[r.token_ids for r in group] for group in got] == [[r.token_ids for r in group] for group in want]
    assert sorted(announced) == [(i, j) for i in range(6) for j in range(3)]
    assert len(built) == 1 + count == 1 + len(engine.failures)


def test_the_last_failure_is_the_cause_and_errors_of_the_user_are_no_failures():
    engine, built = supervised([explode] * 3, restarts=2)
    with pytest.raises(EngineFailure, match=r"(ValueError: planted.*){3}") as failure:
        sample(engine)
    assert [one.closed for one in built] == [True] * 3 and str(failure.value.__cause__) == "planted"
    engine, built = supervised([lambda: (_ for _ in ()).throw(InputError("too long"))])
    with pytest.raises(InputError, match="too long"):
        sample(engine)
    assert len(built) == 1 and not engine.failures


def test_the_engine_lives_in_one_thread_that_does_not_keep_the_process_alive():
    engine, _ = supervised([])
    threads = set()
    for _ in range(2):
        engine.generate(PROMPTS, 1, Sampling(1.0, 2), seeds(PROMPTS, 1), lambda *_: threads.add(threading.current_thread()))
    (thread,) = threads
    assert thread is not threading.current_thread() and thread.daemon


def test_parity_compares_the_learner_with_what_was_sampled():
    model = tiny_model("qwen untied")
    engine, learner = NativeEngine(model, byte_tokenizer()), native_learner(model, 0.7)
    groups = sample(engine, 0.7)
    close = parity(learner.logprobs, spread(PROMPTS, groups))
    assert close.mean < close.largest < 1e-5 and close.tokens == 6 * 16
    require_parity(3, "float32", close)
    improve(learner, groups)
    with pytest.raises(HealthError, match=r"step 3: .* differ by \d\S* nats on average and .* over 96 tokens") as error:
        require_parity(3, "float32", parity(learner.logprobs, pairs(groups)[::3]))
    assert error.value.exit_code == 4
    with pytest.raises(HealthError):
        require_parity(3, "bfloat16", Parity(float("nan"), float("nan"), 1))


def test_probed_responses_come_from_the_whole_batch():
    prompts, groups = list(range(100)), [[f"{i}.{j}" for j in range(4)] for i in range(100)]
    chosen = spread(prompts, groups)
    assert [i for i, _ in chosen] == [0, 12, 25, 37, 50, 62, 75, 87]
    assert {name.split(".")[1] for _, name in chosen} == {"0", "1", "2", "3"}
    assert spread(prompts[:3], groups[:3]) == [(0, "0.0"), (1, "1.1"), (2, "2.2")]


@pytest.mark.parametrize("variable", ALLOCATOR_VARIABLES)
@pytest.mark.parametrize("value", ["expandable_segments:True", "max_split_size_mb:64, expandable_segments:true", "expandable_segments:1"])
def test_growing_segments_are_found_under_every_name(variable, value):
    with pytest.raises(SetupError, match=f"{variable} turns expandable_segments on"):
        require_fixed_segments({variable: value})
    require_fixed_segments({variable: value.lower().replace("true", "False").replace(":1", ":False"), "OTHER": value})


@pytest.mark.parametrize(
    ("version", "says"), [(None, "needs vLLM: pip install"), ("0.25.1", "0.25.1 is not supported, 0.26 to 0.33"), ("1.0", "1.0 is not")]
)
def test_a_vllm_that_is_missing_or_too_little_known_is_refused(monkeypatch, version, says):
    monkeypatch.setattr(process_state, "_distribution", lambda name: version and SimpleNamespace(version=version))
    with pytest.raises(SetupError, match=says):
        process_state.require_version()


def test_a_vllm_that_was_never_run_is_warned_of(monkeypatch):
    monkeypatch.setattr(process_state, "_distribution", lambda name: SimpleNamespace(version="0.33.0"))
    with pytest.warns(UserWarning, match=r"vLLM 0\.33\.0 was never run"):
        process_state.require_version()


def test_a_block_that_fails_is_contained_too():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="planted"), contained():
        torch.manual_seed(1)
        torch.set_num_threads = None
        explode()
    assert torch.equal(torch.get_rng_state(), before) and callable(torch.set_num_threads)
