"""The built-in base model: made once, cached by content, trained by the policy loss that is cross-entropy here."""

from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from fastgrpo import base_model
from fastgrpo.arithmetic import exercises, worked_answer
from fastgrpo.base_model import BaseRecipe, base_model_directory, question_answer_texts
from fastgrpo.config import LossConfig
from fastgrpo.learner.native import NativeLearner
from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.packing import pack
from fastgrpo.windows import text_sequences

SMALL = BaseRecipe(texts=2000, hidden=32, intermediate=64, layers=1, heads=1, kv_heads=1, initializer_range=0.1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return cache, base_model_directory(cache, lambda text: None, SMALL)


def test_the_second_time_comes_from_the_cache(base, monkeypatch):
    monkeypatch.setattr(base_model, "train_on_text", None)  # calling it would fail
    said = []
    assert base_model_directory(base[0], said.append, SMALL) == base[1]
    assert "from the cache" in said[0]
    with pytest.raises(TypeError):
        base_model_directory(base[0], said.append, BaseRecipe(texts=321, hidden=32, intermediate=64, layers=1, heads=1, kv_heads=1))


def test_a_base_model_whose_making_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(base_model, "train_on_text", fail)
    with pytest.raises(KeyboardInterrupt):
        base_model_directory(tmp_path, lambda text: None, SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_base_model_that_cannot_be_put_in_its_place_is_an_error_unless_another_process_was_first(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(base_model, "train_on_text", lambda *args: None)
    monkeypatch.setattr("fastgrpo.base_model.os.rename", full)
    with pytest.raises(OSError, match="no space left"):
        base_model_directory(tmp_path, lambda text: None, SMALL)

    def beaten(source, target):
        target.mkdir()
        (target / "config.json").write_text("{}")
        raise OSError("directory not empty")

    monkeypatch.setattr("fastgrpo.base_model.os.rename", beaten)
    assert (base_model_directory(tmp_path, lambda text: None, SMALL) / "config.json").exists()


def test_training_lowers_the_cross_entropy_of_held_out_text(base):
    tokenizer, corpus = load_tokenizer(str(base[1])), question_answer_texts(400, 1)[350:]
    trained = load_model(str(base[1]), "float32")
    random = type(trained)(trained.config)
    losses = []
    for model in (trained, random):
        total = [model(input_ids=tokenizer(q + a, return_tensors="pt")["input_ids"], use_cache=False).logits[0] for q, a in corpus]
        ids = [tokenizer(q + a, return_tensors="pt")["input_ids"][0] for q, a in corpus]
        losses.append(torch.stack([F.cross_entropy(logits[:-1], i[1:]) for logits, i in zip(total, ids, strict=True)]).mean().item())
    assert losses[0] < losses[1] - 2


def test_the_gradient_is_that_of_cross_entropy(tiny_model_dir):
    texts = [[1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11, 12, 13, 14, 15]]
    learner = NativeLearner(load_model(str(tiny_model_dir), "float64"), LossConfig(type="token_mean"), 1.0, lambda update: 0.0, 1.0)
    for batch in pack(text_sequences(texts), 8, torch.float64):
        learner.backward(batch)
    plain = load_model(str(tiny_model_dir), "float64")
    logits = torch.cat([plain(input_ids=torch.tensor([text]), use_cache=False).logits[0, :-1] for text in texts])
    F.cross_entropy(logits, torch.tensor([token for text in texts for token in text[1:]])).backward()
    for gradient, parameter in zip(learner.gradients, plain.parameters(), strict=True):
        assert (gradient - parameter.grad).norm() <= 1e-6 * parameter.grad.norm()


@pytest.mark.parametrize("text", ["What is 12+7?", "12+5=17\n\\boxed{17}", "naïve \U0001f600 \x00 \t  two  spaces", "</answer>"])
def test_any_text_round_trips_and_digits_stay_apart(base, text):
    tokenizer = load_tokenizer(str(base[1]))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert all(len(token) == 1 for token in tokenizer.convert_ids_to_tokens(ids) if any(c.isdigit() for c in token))


def test_a_response_ends_with_one_token_and_a_box_begins_with_one(base):
    tokenizer = load_tokenizer(str(base[1]))
    assert tokenizer("\\boxed{17}" + base_model.END)["input_ids"][-1] == tokenizer.eos_token_id == 0
    assert len(tokenizer("\\boxed{17}")["input_ids"]) == 4


def test_right_answers_take_from_one_to_over_five_times_as_many_tokens(base):
    tokenizer = load_tokenizer(str(base[1]))
    lengths = [len(tokenizer(worked_answer(drawn) + base_model.END)["input_ids"]) for drawn in islice(exercises("train", 0), 2000)]
    assert max(lengths) >= 5 * min(lengths)
