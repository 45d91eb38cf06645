"""The settings of pretraining: each can be set, is read, and wrong ones are told in one line by the rules that training has."""

import re
from pathlib import Path

import pytest

from fastgrpo.config import load_config, to_yaml
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.errors import InputError
from fastgrpo.settings_file import PRETRAINING

OTHER = {  # a valid value of each key that differs from the recipe tiny-text
    "model": "some/model",
    "data.train": "[a.txt, b.jsonl]",
    "data.eval": "[]",
    "data.text": "body",
    "data.problem": "question",
    "data.answer": "solution",
    "data.separator": '"\\n\\n"',
    "epochs": "3",
    "context": "64",
    "tokens_per_update": "8192",
    "lr": "1e-5",
    "warmup": "3",
    "schedule": "cosine",
    "grad_clip": "0.5",
    "dtype": "bfloat16",
    "seed": "7",
    "run_dir": "runs/a",
    "tokens_per_pack": "512",
    "learner.engine": "deepspeed",
    "learner.zero": "1",
    "learner.offload": "optimizer",
    "learner.recompute": "true",
    "learner.compile": "true",
    "learner.attention": "sdpa",
    "learner.lora_rank": "8",
    "learner.lora_alpha": "16",
    "learner.lora_targets": "[q_proj, v_proj]",
    "eval.every": "3",
    "checkpoint.every": "4",
    "checkpoint.keep": "5",
    "checkpoint.before": "13800",
    "log.trackers": "[mlflow]",
    "health.phase_seconds": "60",
    "health.skipped_updates": "7",
}


def load(*overrides: str, source: str | None = "tiny-text"):
    return load_config(source, overrides, PretrainConfig)


def value(config, key: str):
    for name in key.split("."):
        config = getattr(config, name)
    return config


def test_every_key_can_be_set_and_prints_back(tmp_path):
    tiny, other = load(), load(*(f"{key}={text}" for key, text in OTHER.items()))
    assert set(OTHER) == set(tiny.origins) and load(source=None) == tiny
    assert {key for key in OTHER if value(tiny.config, key) == value(other.config, key)} == set()
    (tmp_path / "a.yaml").write_text(to_yaml(other))
    assert load(source=str(tmp_path / "a.yaml")).config == other.config


def test_every_key_is_read_somewhere():
    sources = "\n".join(path.read_text() for path in Path(__file__).parents[1].glob("fastgrpo/**/*.py") if "config" not in path.name)
    for key in OTHER:
        assert re.search(rf"config\.{re.escape(key)}\b|(?:settings|data)\.{key.rpartition('.')[2]}\b", sources), f"nothing reads {key}"


@pytest.mark.parametrize("name", PRETRAINING.names())
def test_packaged_recipes_load(name):
    assert load(source=name).name == name


def test_the_papers_recipe():
    config = load(source="llama-3.2-3b-numinaqa").config
    assert (config.epochs, config.lr, config.data.train) == (2, 1e-5, ("AI-MO/NuminaMath-1.5@train",))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("tokens_per_update=100", "tokens_per_update is 100; it must be at least context = 256"),
        ("epoch=3", "unknown key 'epoch'; did you mean epochs?"),
        ("schedule=step", "schedule is 'step'; it must be one of constant, linear, cosine"),
        ("run_dir=../a", "must not lead upwards"),
        ("checkpoint.best=greedy_average", "unknown key 'checkpoint.best'"),
        ("data.train=[]", "data.train is []; it must be text or a list of texts"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(given, words):
    with pytest.raises(InputError) as told:
        load(given)
    assert words in str(told.value) and "\n" not in str(told.value)


def test_deepspeed_is_asked_for_what_it_computes_alone():
    with pytest.raises(InputError, match=r"learner\.engine=deepspeed computes in float32 or bfloat16"):
        load("dtype=float64", "learner.engine=deepspeed")


def test_a_missing_recipe_names_those_of_pretraining():
    with pytest.raises(InputError, match="did you mean tiny-text"):
        load(source="tiny")
