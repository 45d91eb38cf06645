"""The order of sleeping, waking and pushing: the right one passes, every wrong one raises."""

import random

import pytest

from fastgrpo.rollout.states import EngineMemory, IllegalTransition

ROUND = ["generate", ("sleep", 2), "wake_weights", "begin_push", "end_push", "wake_cache", "reset_cache"]


def walk(*steps) -> EngineMemory:
    memory = EngineMemory()
    for step in steps:
        name, *arguments = step if isinstance(step, tuple) else (step,)
        getattr(memory, name)(*arguments)
    return memory


def test_rounds_of_each_sleep_level_pass():
    without_discard = ["generate", ("sleep", 1), "wake_weights", "wake_cache", "reset_cache", "generate"]
    shared = ["generate", ("sleep", 0), "weights_changed", "wake_cache", "reset_cache", "generate"]
    for steps in (ROUND * 3, [*ROUND, *without_discard], shared * 2, ["begin_push", "end_push", "reset_cache", "generate"]):
        assert walk(*steps).weights == "valid"


@pytest.mark.parametrize("left_out", range(1, len(ROUND)))
def test_a_round_without_one_of_its_steps_raises_before_it_samples(left_out):
    with pytest.raises(IllegalTransition, match="cannot"):
        walk(*ROUND[:left_out], *ROUND[left_out + 1 :], *ROUND)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([("sleep", 2), "wake_weights", "wake_cache"], "wake the KV cache while its weights are unwritten"),
        ([("sleep", 2), ("sleep", 1)], "sleep at level 1 while its weights are discarded"),
        ([("sleep", 2), "begin_push"], "push weights while its weights are discarded"),
        ([("sleep", 1), "wake_cache"], "wake the KV cache while its weights are offloaded"),
        ([("sleep", 0), "generate"], "generate while its weights are valid and its KV cache is released"),
        ([("sleep", 0), "reset_cache"], "reset the prefix cache"),
        (["weights_changed", "generate"], "generate while its weights are valid and its KV cache is stale"),
        (["begin_push", "generate"], "generate while its weights are half written"),
        (["begin_push", ("sleep", 1), "wake_weights", "generate"], "generate while its weights are unwritten"),
        (["end_push"], "end a push"),
        (["wake_weights"], "wake the weights while its weights are valid"),
    ],
)
def test_wrong_orders_raise_and_say_what_is_held(steps, says):
    with pytest.raises(IllegalTransition, match=says):
        walk(*steps)


def test_no_walk_of_allowed_steps_ever_samples_from_old_or_half_written_weights():
    """A thousand random walks against a simple account of what memory holds; a step that is refused changes nothing."""
    rng, sampled = random.Random(0), 0
    for _ in range(1000):
        memory, version, held, cached = EngineMemory(), 0, 0, 0  # versions of: the last push, the weights, the oldest cache entry
        for _ in range(12):
            step = rng.choice([*ROUND, ("sleep", 1)])
            name, *arguments = step if isinstance(step, tuple) else (step,)
            before = (memory.weights, memory.cache)
            try:
                getattr(memory, name)(*arguments)
            except IllegalTransition:
                assert (memory.weights, memory.cache) == before
                continue
            if name == "generate":
                assert held == cached == version
                sampled += 1
            elif name == "sleep" and arguments == [2]:
                held = -1
            elif name == "begin_push":
                held, version = -1, version + 1
            elif name == "end_push":
                held = version
            elif name == "reset_cache":
                cached = version
    assert sampled > 300
