"""Compiled layers: the updates of the plain ones, few compilations, and a model that is otherwise as it was."""

import copy
import math

import pytest
import torch
from test_deepspeed import requires_deepspeed, start

from fastgrpo.config import LossConfig, load_config
from fastgrpo.engines import make_learner
from fastgrpo.errors import InputError
from fastgrpo.learner.compiled import compile_layers
from fastgrpo.learner.native import NativeLearner
from fastgrpo.learner.recompute import recompute_activations
from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.packing import pack_one
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.types import Prompt, Sampling, TrainingSequence

PACKS = [(5,), (9, 3), (17, 2, 8), (40,), (6,) * 7, (64, 30)]  # lengths of the sequences of six packs


def packs():
    drawn = torch.Generator().manual_seed(0)

    def sequence(length: int) -> TrainingSequence:
        ids = tuple(torch.randint(1, 250, (length + 1,), generator=drawn).tolist())
        return TrainingSequence(ids[:2], ids[2:], (-5.0,) * (length - 1), (-1.0) ** length, 0.05)

    return [pack_one([sequence(length) for length in lengths]) for lengths in PACKS]


def graphs() -> int:
    """How many graphs were compiled in this process so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def outcome(learner) -> list[torch.Tensor]:
    """For each pack: log-probs, loss and gradient norm of an update from it; the weights at the end."""
    found = []
    for batch in packs():
        (logprobs,) = learner.logprobs([batch])
        (stats,), norm = learner.update([batch])
        found += [logprobs, torch.tensor([stats["loss"], norm])]
    return [*found, torch.cat([weight.detach().reshape(-1) for _, weight in learner.named_weights()])]


@pytest.mark.long  # 20 to 60 s on two busy cores, without a warm cache of compiled code
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_layers_give_the_same_updates_from_few_compilations(tiny_model_dir, tmp_path, recompute):
    torch._dynamo.reset()
    plain, model = (load_model(str(tiny_model_dir), "float32") for _ in range(2))
    for each in (plain, model) if recompute else ():
        recompute_activations(each)
    compile_layers(model)
    plain, compiled = (NativeLearner(each, LossConfig(type="dr_grpo"), 1.0, lambda update: 1e-3, math.inf) for each in (plain, model))
    before = graphs()
    want, got = outcome(plain), outcome(compiled)
    for right, found in zip(want, got, strict=True):
        assert (found - right).abs().max() <= 1e-4 * right.abs().max()
    made = graphs() - before
    assert 0 < made <= 12, "four parts of a layer, with and without gradients"

    outcome(compiled)
    assert graphs() - before == made, "nothing is compiled for lengths seen before"
    engine = NativeEngine(model, load_tokenizer(str(tiny_model_dir)))
    engine.generate([Prompt("0", (5, 6, 7), "")], 2, Sampling(1.0, 12), [[1, 2]])
    assert graphs() - before == made, "generation is not compiled"

    names = [name for name, _ in plain.named_weights()]
    assert [name for name, _ in compiled.named_weights()] == names
    assert set(model.state_dict()) == set(plain.model.state_dict())
    model.save_pretrained(tmp_path)
    saved = dict(load_model(str(tmp_path), "float32").named_parameters())
    assert list(saved) == names and all(torch.equal(saved[name], weight) for name, weight in compiled.named_weights())


def test_only_packs_take_the_compiled_way_and_copies_are_plain(tiny_model_dir, monkeypatch):
    model, compiled = load_model(str(tiny_model_dir), "float32"), []
    monkeypatch.setattr(
        torch, "compile", lambda call, **settings: lambda *given, **named: compiled.append(settings) or call(*given, **named)
    )
    make_learner(load_config("tiny", ["learner.compile=true"]).config, model).logprobs(packs()[:1])
    assert compiled == [{"dynamic": True}] * 2
    model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=3)
    model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
    assert len(compiled) == 2
    assert copy.deepcopy(model).model.layers[0]._compiled_call_impl is None


def test_a_model_without_marked_layers_is_refused():
    with pytest.raises(InputError, match=r"learner\.compile=true, and the layers of Linear are not marked"):
        compile_layers(torch.nn.Linear(2, 2))


@requires_deepspeed
@pytest.mark.long  # 60 s on two busy cores
def test_compiled_layers_give_the_same_updates_with_deepspeed(tiny_model_dir):
    assert "all checked" in start(2, "compiled_program.py", tiny_model_dir).stdout
