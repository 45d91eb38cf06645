"""An engine that finds no memory when it wakes up: a second try after memory was given back, then an error that says what to lower."""

import gc

import pytest
import torch
from rollout.colocation import PROMPTS, tiny_model

from fastgrpo.errors import SetupError
from fastgrpo.rollout import colocated
from fastgrpo.rollout.supervised import SupervisedEngine
from fastgrpo.rollout.vllm_settings import VllmSettings
from fastgrpo.types import Sampling


class Woken(Exception):
    """The engine is awake and begins to draw: as far as these tests go."""


class FakeVllm:
    """Stands in for vLLM: its wake-ups fail with the planned errors, one after the other."""

    def __init__(self, model, learned, tokenizer, eos_ids, settings):
        self.weights, self.why, self.on_gpu, self.cache_tokens, self.preemptions, self.beat = "push", "planned", False, 1, 0, 0.0
        self.calls = []

    def wake(self, part):
        self.calls.append(part)
        if errors := self.errors.get(part):
            raise errors.pop(0)

    def load(self, weights):
        return sum(tensor.nbytes for _, tensor in weights)

    def sleep(self, level): ...

    def reset_cache(self): ...

    def close(self): ...

    def draw(self, requests, sampling, take):
        raise Woken


@pytest.fixture
def asleep(monkeypatch):
    """`asleep(part=[errors])`: an engine that sleeps without weights, and whose wake-ups will fail so."""
    monkeypatch.setattr(colocated, "InProcessVllm", FakeVllm)

    def make(**errors):
        FakeVllm.errors = errors
        from conftest import byte_tokenizer

        engine = colocated.VllmEngine(tiny_model("qwen tied"), byte_tokenizer(), VllmSettings(512, 64, 3 * 2**20))
        engine.sleep()
        return engine

    return make


def draw(engine):
    engine.generate(PROMPTS[:1], 1, Sampling(1.0, 4), [[1]])


SHORT = (torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("CUDA Error: out of memory at cumem_allocator.cpp:62"))


@pytest.mark.parametrize("error", SHORT, ids=["torch", "allocator"])
@pytest.mark.parametrize("part", ["weights", "kv_cache"])
def test_a_part_that_finds_no_room_is_woken_again_after_memory_was_given_back(asleep, part, error, monkeypatch):
    engine, given_back = asleep(**{part: [error]}), []
    monkeypatch.setattr(gc, "collect", lambda: given_back.append("collected"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append("emptied"))
    with pytest.raises(Woken):
        draw(engine)
    assert engine.vllm.calls == (["weights", "weights", "kv_cache"] if part == "weights" else ["weights", "kv_cache", "kv_cache"])
    assert given_back == ["collected", "emptied"]
    assert (engine.memory.weights, engine.memory.cache) == ("valid", "valid")


@pytest.mark.parametrize(("part", "size"), [("weights", r"weights of \d MiB"), ("kv_cache", "KV cache of 3 MiB")])
def test_after_a_second_failure_it_is_said_what_holds_memory_and_what_to_lower(asleep, part, size):
    engine = asleep(**{part: list(SHORT)})
    words = rf"cannot wake up: its {size} finds no room .*resident [\d,]+ MiB.*Lower rollout.cache_gib or tokens_per_pack"
    with pytest.raises(SetupError, match=words) as error:
        draw(engine)
    assert error.value.exit_code == 3 and str(error.value.__cause__) == str(SHORT[1])


def test_other_errors_of_a_wake_up_are_not_taken_for_a_lack_of_memory(asleep):
    with pytest.raises(RuntimeError, match="did not wake"):
        draw(engine := asleep(kv_cache=[RuntimeError("vLLM did not wake up: a part of its memory still sleeps")]))
    assert engine.vllm.calls.count("kv_cache") == 1


def test_a_supervised_engine_is_not_built_again_for_it(asleep):
    built = []

    def build():
        built.append(asleep(kv_cache=list(SHORT)))
        return built[-1]

    with pytest.raises(SetupError, match="cannot wake up"):
        draw(SupervisedEngine(build, deadline=60.0, restarts=2))
    assert len(built) == 1
