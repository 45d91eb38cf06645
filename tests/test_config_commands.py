"""init, config diff and config schema: a recipe as a commented file, what differs between two sources, and what an editor checks."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from fastgrpo.cli import make_app
from fastgrpo.config import Config, fields_of, load_config, to_yaml
from fastgrpo.config_kind import kind_of, load_any
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.config_schema import settings_schema
from fastgrpo.errors import InputError, SetupError
from fastgrpo.settings_file import PRETRAINING, TRAINING, read_yaml

RECIPES = [*((name, Config) for name in TRAINING.names()), *((name, PretrainConfig) for name in PRETRAINING.names())]
each_recipe = pytest.mark.parametrize(("name", "kind"), RECIPES, ids=[name for name, _ in RECIPES])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(make_app(), arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refusal(kind: type[Exception], *arguments: str) -> str:
    with pytest.raises(kind) as caught:
        CliRunner().invoke(make_app(), arguments, catch_exceptions=False)
    return str(caught.value)


@each_recipe
def test_the_written_file_loads_back_as_exactly_the_recipe_and_explains_every_setting(name, kind):
    run("init", name)
    text = Path(f"{name}.yaml").read_text()
    again = load_config(f"{name}.yaml", [], kind)
    assert again.config == load_config(name, [], kind).config
    assert all(origin.startswith(f"{name}.yaml:") for origin in again.origins.values())  # none is left to a default
    words = " ".join(text.replace("#", " ").split())
    assert all(" ".join(field.description.split()) in words for field in fields_of(kind).values())
    assert kind_of(f"{name}.yaml") is kind


def test_init_says_what_is_allowed_and_which_settings_decide_the_experiment():
    run("init", "tiny", "--out", "mine.yaml")
    text = Path("mine.yaml").read_text()
    assert "(one of r1, qwen_math, no, 4-shot, open-reasoner-zero, prime-zero)\ntemplate: 'no'" in text
    assert "(true or false)\n  compile: false" in text and "(a whole number >= 2)\nsamples_per_prompt: 8" in text
    decisive, rest = text.split("# ---- what has a default ----")
    assert "\nlr: " in decisive and "\nseed: " in rest and "\nseed: " not in decisive
    assert max(map(len, text.splitlines())) <= 130 and text.isascii()


def test_a_file_of_ones_own_and_a_run_can_be_written_out_too():
    Path("mine.yaml").write_text("recipe: tiny\nlr: 2e-6\n")
    run("init", "mine.yaml", "--out", "whole.yaml")
    assert "#   fastgrpo config diff mine.yaml whole.yaml\n" in Path("whole.yaml").read_text()
    assert run("config", "diff", "mine.yaml", "whole.yaml") == "no setting differs\n"


def test_init_overwrites_nothing_and_writes_nothing_half():
    Path("tiny.yaml").write_text("mine")
    assert refusal(InputError, "init", "tiny") == "tiny.yaml exists and is left as it is: choose another with --out"
    assert Path("tiny.yaml").read_text() == "mine"
    assert "no file and no recipe 'tinny'; did you mean tiny?" in refusal(InputError, "init", "tinny")
    assert (
        refusal(SetupError, "init", "tiny", "--out", "no/such/tiny.yaml")
        == "no/such/tiny.yaml cannot be written: No such file or directory"
    )
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


def test_diff_shows_what_differs_and_where_each_value_came_from():
    Path("mine.yaml").write_text("recipe: tiny\nlr: 2e-6\nloss:\n  beta: 0.01\n")
    assert run("config", "diff", "tiny", "mine.yaml") == (
        "loss.beta\n  tiny: 0.0  # default\n  mine.yaml: 0.01  # mine.yaml:4\n"
        "lr\n  tiny: 0.0001  # recipe tiny\n  mine.yaml: 2.0e-06  # mine.yaml:2\n2 settings differ\n"
    )
    assert run("config", "diff", "mine.yaml", "mine.yaml") == "no setting differs\n"
    assert json.loads(run("config", "diff", "tiny", "mine.yaml", "--json"))[1] == {
        "key": "lr", "left": 1e-4, "right": 2e-6, "left_origin": "recipe tiny", "right_origin": "mine.yaml:2"
    }  # fmt: skip


def test_diff_reads_runs_whose_settings_keep_their_own_origins():
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/config.yaml").write_text(to_yaml(load_config("tiny", ["seed=3", "loss.type=grpo"])))
    assert run("config", "diff", "tiny", "runs/one") == (
        "loss.type\n  tiny: dr_grpo  # recipe tiny\n  runs/one: grpo  # command line\n"
        "seed\n  tiny: 0  # default\n  runs/one: 3  # command line\n2 settings differ\n"
    )
    assert load_any("runs/one").origins["steps"] == "recipe tiny"


def test_diff_refuses_what_cannot_be_compared():
    assert refusal(InputError, "config", "diff", "tiny", "tiny-text") == (
        "tiny has settings of `fastgrpo train`, tiny-text of `fastgrpo pretrain`: give two of one kind"
    )
    assert "no file and no recipe 'nosuch'" in refusal(InputError, "config", "diff", "tiny", "nosuch")
    Path("bad.yaml").write_text("lr: [")
    assert "bad.yaml:1: not valid YAML" in refusal(InputError, "config", "diff", "tiny", "bad.yaml")


def test_files_of_pretraining_are_known_by_their_keys_or_by_what_they_extend():
    Path("book.yaml").write_text("recipe: tiny-text\nlr: 1e-4\n")
    assert kind_of("book.yaml") is PretrainConfig and kind_of("tiny-text") is PretrainConfig
    assert kind_of("tiny") is kind_of(None) is kind_of("absent.yaml") is Config
    assert "tokens_per_update: 4096" in run("config", "show", "book.yaml")


def checker(kind) -> jsonschema.Draft202012Validator:
    schema = json.loads(run("config", "schema", *(["--pretrain"] if kind is PretrainConfig else [])))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@each_recipe
def test_the_schema_accepts_recipes_written_out_or_extended(name, kind):
    run("init", name)
    for text in (Path(f"{name}.yaml").read_text(), kind.recipes.read(name).decode(), f"recipe: {name}\nlr: 1.0e-6\n"):
        checker(kind).validate(read_yaml(text))


@pytest.mark.parametrize(
    "text",
    ["lrr: 1", "steps: many", "loss:\n  type: ppo", "learner:\n  zero: 4", "samples_per_prompt: 1", "recipe: tinny", "data:\n  eval: [1]"],
)
def test_the_schema_refuses_what_loading_would_refuse(text):
    assert list(checker(Config).iter_errors(yaml.safe_load(text)))
    with pytest.raises(InputError):
        Path("wrong.yaml").write_text(text if text.startswith("recipe") else f"recipe: tiny\n{text}\n")
        load_config("wrong.yaml", [])


def test_the_schema_takes_one_name_where_loading_does():
    for text in ("data:\n  eval: a.jsonl", "eval:\n  ways: greedy", "reward:\n  function: a.py:f", "checkpoint:\n  before: null"):
        checker(Config).validate(yaml.safe_load(text))
    assert "description" in settings_schema(Config)["properties"]["lr"]
