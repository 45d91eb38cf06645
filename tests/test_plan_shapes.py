"""Shapes of models: known ones count the parameters that their publishers count, others come from a config.json or by hand."""

import dataclasses
import json

import pytest

from fastgrpo.base_model import BaseRecipe
from fastgrpo.errors import InputError
from fastgrpo.plan.shapes import KNOWN, shape_of


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("Qwen/Qwen2.5-Math-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    ],
)
def test_known_models_have_the_published_number_of_parameters(model, parameters):
    assert shape_of(model, {})[0].parameters == parameters


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_config_counts_the_parameters_of_the_model_it_makes(tmp_path, kind, tied):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind, vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        head_dim=8, tie_word_embeddings=tied,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape_of(str(tmp_path), {})[0].parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_built_in_model_is_as_wide_as_it_is_made():
    shape, made = KNOWN["builtin:base"], BaseRecipe()
    assert (shape.hidden, shape.intermediate, shape.layers) == (made.hidden, made.intermediate, made.layers)
    assert (shape.heads, shape.kv_heads, shape.vocabulary) == (made.heads, made.kv_heads, made.vocabulary)


@pytest.mark.parametrize("model", ["./models/Llama-3.2-3B-NuminaQA", "someone/llama-3.2-3b-instruct", "Llama-3.2-3B"])
def test_a_model_that_is_not_here_has_the_shape_of_the_one_it_is_named_after(model):
    assert shape_of(model, {}) == (KNOWN["Llama-3.2-3B"], "that of Llama-3.2-3B, by its name")


def test_the_longest_name_wins():
    assert shape_of("a/Qwen2.5-Math-7B-Oat-Zero", {})[1] == "that of Qwen2.5-Math-7B, by its name"


def test_numbers_given_by_hand_are_enough_and_win():
    given = {"hidden": 64, "intermediate": 128, "layers": 2, "heads": 4, "vocabulary": 100}
    shape, source = shape_of("a/b", given)
    assert (shape.head_dim, shape.kv_heads, source) == (16, 4, "as given")
    assert shape_of("Qwen/Qwen2.5-7B", {"layers": 2})[0] == dataclasses.replace(KNOWN["Qwen2.5-7B"], layers=2)


def test_an_unknown_name_is_told_in_one_line_with_what_to_give():
    with pytest.raises(InputError) as caught:
        shape_of("a/b", {"hidden": 8, "layers": 2})
    assert "\n" not in str(caught.value)
    assert "give a directory with its config.json, or --intermediate N --heads N --vocabulary N;" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", json.dumps({"hidden_size": 8}), json.dumps({"hidden_size": "wide"})])
def test_a_config_that_cannot_be_read_is_told_in_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        shape_of(str(tmp_path), {})
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
