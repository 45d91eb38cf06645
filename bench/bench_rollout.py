"""Rollouts of the built-in base model: the native engine and vLLM on the same prompts and seeds, in one run.

Speed does not count without the same responses: both must draw almost all of them alike, token for token. The model is so small that
a CPU's result says what the engines' own overhead is, and nothing about larger models: `note` says so.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait starve the engine on a few cores

from itertools import islice
from pathlib import Path

import pytest
import torch

from fastgrpo.arithmetic import exercises
from fastgrpo.base_model import base_model_directory
from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.rollout.colocated import VllmEngine
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.rollout.process_state import require_version
from fastgrpo.rollout.vllm_settings import VllmSettings
from fastgrpo.types import Prompt, Sampling

PROMPTS, SAMPLES = 64, 8
SAMPLING = Sampling(1.0, 96)
SEEDS = [[1000 * i + j for j in range(SAMPLES)] for i in range(PROMPTS)]
CASES = [
    pytest.param(name, id=f"rollout-{name}", marks=pytest.mark.benchmark(group=f"rollout, {PROMPTS} prompts of {SAMPLES} responses"))
    for name in ("native", "vllm, shared weights", "vllm, pushed weights")
]


@pytest.fixture(scope="module")
def directory() -> str:
    cache = Path(os.environ.get("FASTGRPO_CACHE") or Path.home() / ".cache" / "fastgrpo")
    return str(base_model_directory(cache, print))


@pytest.fixture(scope="module")
def reference(directory):
    """What the native engine draws."""
    tokenizer = load_tokenizer(directory)
    drawn = islice(exercises("train", 1), PROMPTS)
    prompts = [Prompt(str(i), tuple(tokenizer(one.problem)["input_ids"]), one.answer) for i, one in enumerate(drawn)]
    return prompts, NativeEngine(place(load_model(directory, "float32")), tokenizer).generate(prompts, SAMPLES, SAMPLING, SEEDS)


@pytest.mark.parametrize("name", CASES)
def test_tokens_per_second(benchmark, directory, reference, name):
    model, tokenizer, (prompts, expected) = place(load_model(directory, "float32")), load_tokenizer(directory), reference
    if name == "native":
        engine = NativeEngine(model, tokenizer)
    else:
        try:
            require_version()
        except Exception as missing:
            pytest.skip(str(missing))
        weights = "shared" if "shared" in name else "push"
        engine = VllmEngine(model, tokenizer, VllmSettings(512, PROMPTS * SAMPLES, 2**28, weights))

    def step():
        engine.update_weights(model.named_parameters())
        groups = engine.generate(prompts, SAMPLES, SAMPLING, SEEDS)
        engine.sleep()
        return groups

    groups = benchmark.pedantic(step, rounds=5, warmup_rounds=1)
    pairs = [(a, b) for group, want in zip(groups, expected, strict=True) for a, b in zip(group, want, strict=True)]
    alike = sum(a.token_ids == b.token_ids for a, b in pairs) / len(pairs)
    assert alike > 0.98, f"{name} draws other responses"
    info = benchmark.extra_info
    info["note"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, 0.5 M parameters: overhead, no result"
    info["tokens/s"] = round(sum(len(rollout.token_ids) for group in groups for rollout in group) / benchmark.stats.stats.median)
    info["alike"] = alike
    if isinstance(engine, VllmEngine):
        engine.close()


def place(model):
    return model.to("cuda") if torch.cuda.is_available() else model
