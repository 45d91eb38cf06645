"""Activation checkpointing beside generation by the same module."""

import torch

from fastgrpo.learner.recompute import recompute_activations
from fastgrpo.model import hidden_states, load_model, load_tokenizer
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.types import Prompt, Sampling


def test_generation_between_updates_has_its_cache_and_updates_recompute(tiny_model_dir):
    model, runs = load_model(str(tiny_model_dir), "float32"), []
    engine = NativeEngine(model, load_tokenizer(str(tiny_model_dir)))

    def draw():
        return engine.generate([Prompt("0", (5, 6, 7), "")], 2, Sampling(1.0, 12), [[1, 2]])

    plain = draw()
    recompute_activations(model)
    model.base_model.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    for _ in range(2):
        assert draw() == plain
        runs.clear()
        bounds = torch.tensor([0, 3], dtype=torch.int32)
        hidden_states(model, torch.tensor([1, 2, 3]), torch.arange(3), bounds, 3).sum().backward()
        assert len(runs) == 2
