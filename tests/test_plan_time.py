"""The time of a plan: generation and learning against numbers by hand, and every lever moves it the right way."""

import pytest
from plan_cases import SAME_LENGTH, planned

from fastgrpo.config import load_config
from fastgrpo.plan.generation import concurrency, decode_steps
from fastgrpo.plan.lengths import response_lengths
from fastgrpo.plan.shapes import KNOWN


def test_decode_steps_shrink_as_responses_end_and_wait_for_slots():
    assert decode_steps([3, 1], prompt_tokens=10, slots=2) == [(1, 2, 21.0), (2, 1, 12.0)]
    assert decode_steps([3, 1], prompt_tokens=10, slots=1) == [(3, 1, 11.5), (1, 1, 10.5)]


@pytest.mark.parametrize("slots", [1, 7, 128])
def test_every_token_is_decoded_once(slots):
    lengths = response_lengths(128, 300, 0.6, 1000)
    assert sum(steps * alive for steps, alive, _ in decode_steps(lengths, 100, slots)) == sum(lengths)


def test_the_cache_bounds_how_many_decode_at_once():
    config, token = (
        load_config("oat-zero-7b", ["rollout.cache_gib=1.0"]).config,
        2 * 2 * 28 * 4 * 128,
    )  # keys and values, bytes, layers, heads
    assert concurrency(KNOWN["Qwen2.5-Math-7B"], config, 150, [874]) == 2**30 // (token * 1024)


def case(*settings: str, **arguments) -> tuple:
    return settings, arguments


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (case(gpus=16), case(gpus=8)),
        (case(gpus=8), case(gpus=4)),
        (case(gpus=2), case(gpus=1)),
        (case(gpu="h100"), case()),
        (case(gpu="h200"), case(gpu="h100")),
        (case(assume=("mean_response_tokens=400",)), case()),
        (case(), case(assume=("mean_response_tokens=1600",))),
        (case("learner.recompute=false"), case()),
        (case(), case("learner.zero=3")),
        (case(), case("learner.offload=optimizer")),
        (case("old_logprobs=sampler", "loss.tis_cap=2"), case()),
        (case("updates_per_rollout=1"), case()),
        (case(), case("loss.beta=0.01")),
        (case(assume=("zero_signal=0.8",)), case()),
        (case("eval.every=0"), case()),
        (case(), case("eval.ways=[greedy, sampled]")),
        (case(), case("rollout.sequences=16")),
        (case(), case("sampling.refill=2")),
        (case("steps=100"), case("steps=200")),
        (case(recipe="oat-zero-1.5b"), case()),
        (case(), case(assume=("mfu=0.3",))),
    ],
)
def test_time_moves_the_right_way(less, more):
    assert planned(*less[0], **less[1]).times.hours < planned(*more[0], **more[1]).times.hours


def test_training_takes_the_seconds_of_its_flops():
    """With one update nothing is passed twice: 6 FLOPs a parameter and token, 6 s^2 a layer for attention, 6 H V a response token."""
    shape, assume = KNOWN["Qwen2.5-Math-7B"], (*SAME_LENGTH, "mfu=0.5", "mfu_head=0.5", "imbalance=1")
    got = planned("learner.recompute=false", "updates_per_rollout=1", assume=assume).times.phases
    sequences = 0.6 * 1024
    flops = sequences * (6 * shape.body_parameters * 949 + 6 * 949**2 * 3584 * 28 + 6 * shape.head_parameters * 800)
    assert got["forward and backward"] == pytest.approx(flops / (8 * 0.5 * 312e12), rel=1e-6)
    assert "old log-probs" not in got
