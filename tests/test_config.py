"""Settings: what is accepted, where each value came from, and what is said of a wrong one."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fastgrpo.config import Config, load_config, to_yaml
from fastgrpo.errors import InputError
from fastgrpo.settings_file import TRAINING

OTHER = {  # a valid value of each key that differs from the recipe tiny
    "model": "some/model",
    "template": "r1",
    "data.train": "train.jsonl",
    "data.eval": "[a.jsonl, b.jsonl]",
    "data.problem": "question",
    "data.answer": "solution",
    "verifier": "math_verify",
    "max_prompt_tokens": "17",
    "max_new_tokens": "19",
    "temperature": "0.7",
    "prompts_per_step": "12",
    "samples_per_prompt": "6",
    "updates_per_rollout": "2",
    "loss.type": "grpo",
    "loss.clip_low": "0.1",
    "loss.clip_high": "0.3",
    "loss.delta": "4",
    "loss.beta": "1e-3",
    "loss.entropy_coef": "0.01",
    "loss.tis_cap": "2",
    "loss.truncation": "soft",
    "old_logprobs": "sampler",
    "lr": "1e-6",
    "grad_clip": "0.5",
    "dtype": "bfloat16",
    "steps": "5",
    "seed": "7",
    "run_dir": "runs/a",
    "tokens_per_pack": "512",
    "sampling.refill": "2",
    "reward.function": "[a.py:f, verifier]",
    "reward.url": "http://localhost:1/",
    "reward.weights": "[1, 0.5, 2]",
    "reward.deadline": "5",
    "reward.workers": "3",
    "reward.compat": "true",
    "reward.preflight": "false",
    "rollout.engine": "vllm",
    "rollout.weights": "push",
    "rollout.tensor_parallel": "2",
    "rollout.sequences": "16",
    "rollout.cache_gib": "0.25",
    "rollout.fp32_head": "false",
    "rollout.deadline": "30",
    "rollout.restarts": "0",
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
    "eval.ways": "greedy",
    "eval.verifier": "fast",
    "checkpoint.every": "4",
    "checkpoint.keep": "5",
    "checkpoint.before": "13800",
    "checkpoint.best": "greedy_average",
    "log.trackers": "[wandb, tensorboard]",
    "health.phase_seconds": "60",
    "health.skipped_updates": "7",
    "health.steps_without_signal": "2",
}


def value(config: Config, key: str):
    for name in key.split("."):
        config = getattr(config, name)
    return config


def problems(source: str | None, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_config(source, overrides)
    return str(caught.value).split("\n")


def problem(source: str | None, *overrides: str) -> str:
    lines = problems(source, *overrides)
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes my.yaml into the working directory and gives back its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> str:
        Path("my.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return "my.yaml"

    return write


def test_every_key_can_be_set_from_the_command_line():
    tiny, other = load_config("tiny", []), load_config("tiny", [f"{key}={text}" for key, text in OTHER.items()])
    assert set(OTHER) == set(tiny.origins)
    assert set(other.origins.values()) == {"command line"}
    assert {key for key in OTHER if value(tiny.config, key) == value(other.config, key)} == set()


@pytest.mark.parametrize("name", TRAINING.names())
def test_packaged_recipes_load(name):
    assert load_config(name, []).name == name


def test_no_source_means_the_recipe_tiny():
    assert load_config(None, []) == load_config("tiny", [])


def test_the_decisions_of_an_experiment_have_no_default(file):
    missing = [line.split(" ")[1] for line in problems(file("seed: 1"))]
    assert " ".join(missing) == (
        "model template data.train verifier max_prompt_tokens max_new_tokens temperature prompts_per_step samples_per_prompt "
        "updates_per_rollout loss.type lr grad_clip dtype steps"
    )


def test_a_missing_key_says_what_it_is_and_how_to_go_on(file):
    text = to_yaml(load_config("tiny", [])).replace("model: builtin:base", "")
    line = problem(file(text))
    assert line.startswith("my.yaml: model is missing; it must be text") and "recipe: tiny" in line


def test_each_value_knows_where_it_came_from(file):
    resolved = load_config(file("# mine\nrecipe: tiny\nlr: 1e-6\nloss:\n  # unset\n  beta: 0.5\n"), ["steps=3", "loss={clip_low: 0.1}"])
    origins = resolved.origins
    assert resolved.name == "my"
    assert (origins["lr"], origins["loss.beta"]) == ("my.yaml:3", "my.yaml:6")
    assert (origins["model"], origins["loss.delta"]) == ("recipe tiny", "default")
    assert (origins["steps"], origins["loss.clip_low"]) == ("command line", "command line")
    assert (resolved.config.lr, resolved.config.loss.beta, resolved.config.steps, resolved.config.loss.clip_low) == (1e-6, 0.5, 3, 0.1)


def test_the_last_override_of_a_key_wins():
    assert load_config("tiny", ["steps=3", "steps=4"]).config.steps == 4


def test_one_evaluation_set_may_be_given_without_a_list():
    assert load_config("tiny", ["data.eval=a.jsonl"]).config.data.eval == ("a.jsonl",)
    assert load_config("tiny", ["data.eval=[]"]).config.data.eval == ()


@pytest.mark.parametrize(("text", "number"), [("1e-6", 1e-6), ("2E3", 2e3), (".5", 0.5), ("1.", 1.0), ("3", 3.0), ("1.5e+2", 150.0)])
def test_numbers_are_numbers(text, number):
    assert load_config("tiny", [f"lr={text}"]).config.lr == number


@pytest.mark.parametrize("text", ["no", "yes", "on", "1:30", "2026-01-01", "007", "=", "<<"])
def test_words_that_old_yaml_would_convert_stay_text(text):
    assert load_config("tiny", [f"data.problem={text}"]).config.data.problem == text


def test_a_printed_config_shows_every_key_with_its_origin_and_loads_back(file):
    resolved = load_config(file("recipe: tiny\nlr: 1e-6\nrun_dir: '1e-6'\n"), ["loss.delta=3", "data.eval=[]"])
    text = to_yaml(resolved)
    assert [line.split("  # ")[1] for line in text.splitlines() if "#" in line] == list(resolved.origins.values())
    again = load_config(file(text), [])
    assert again.config == resolved.config
    assert "default" not in again.origins.values()


@example(text="a\n\x85", texts=["\u2028", "a\nb: # c"], number=1e-6)
@settings(deadline=None, max_examples=50)
@given(text=st.text(min_size=1), texts=st.lists(st.text()), number=st.floats(min_value=1e-300, allow_infinity=False, allow_nan=False))
def test_any_text_and_number_survives_printing(text, texts, number, tmp_path_factory):
    tiny = load_config("tiny", [])
    config = Config.model_validate(
        {**dict(tiny.config), "lr": number, "run_dir": text, "data": tiny.config.data.model_copy(update={"eval": tuple(texts)})}
    )
    path = tmp_path_factory.mktemp("printed") / "config.yaml"
    printed = to_yaml(type(tiny)(config, tiny.origins, "printed"))
    assert printed.count("\n") == to_yaml(tiny).count("\n")
    path.write_bytes(printed.encode())
    assert load_config(str(path), []).config == config


def test_a_printed_config_means_the_same_to_other_readers_of_yaml():
    assert yaml.safe_load(to_yaml(load_config("tiny", ["lr=1e-6"])))["template"] == "no"
    assert yaml.safe_load(to_yaml(load_config("tiny", ["lr=1e-6"])))["lr"] == 1e-6


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("steps=abc", "steps is 'abc'; it must be a whole number >= 1 ("),
        ("steps='3'", "steps is '3'; it must be a whole number >= 1 ("),
        ("steps=3.5", "steps is 3.5; it must be a whole number >= 1 ("),
        ("steps=true", "steps is True; it must be a whole number >= 1 ("),
        ("steps=0", "steps is 0; it must be a whole number >= 1 ("),
        ("lr=", "lr is null; it must be a number > 0 ("),
        ("lr=.nan", "lr is nan; it must be a number > 0 ("),
        ("lr=.inf", "lr is inf; it must be a number > 0 ("),
        ("lr={a: 1}", "lr is {'a': 1}; it must be a number > 0 ("),
        ("loss.clip_low=2", "loss.clip_low is 2; it must be a number >= 0 and <= 1 ("),
        ("loss.tis_cap=0", "loss.tis_cap is 0; it must be a number > 0 or null ("),
        ("loss.type=ppo", "loss.type is 'ppo'; it must be one of dr_grpo, grpo, grpo_no_std, grpo_no_length, token_mean ("),
        ("learner.compile=yes", "learner.compile is 'yes'; it must be true or false ("),
        ("rollout.engine=vlm", "rollout.engine is 'vlm'; it must be one of native, vllm ("),
        ("model=7", "model is 7; it must be text, in quotes if it looks like a number ("),
        ("data.eval=[1, a, 2]", "data.eval is [1, 'a', 2]; it must be text or a list of texts, [] for none ("),
        ("temperature=0", "training samples, so it needs a temperature; greedy is what evaluation does by itself)"),
        ("samples_per_prompt=1", "a group of 1 has no baseline)"),
        ("loss.delta=1.2", "loss.delta is 1.2; it must be above 1 + loss.clip_high = 1.2"),
        ("old_logprobs=sampler", "it needs loss.tis_cap"),
        ("updates_per_rollout=3", "updates_per_rollout is 3; it must divide prompts_per_step * samples_per_prompt = 64 * 8 = 512"),
        ("loss=grpo", "loss is a section, not a value; set one of loss.type, loss.clip_low"),
        ("eval=a.jsonl", "eval is a section, not a value; set one of data.eval, eval.every"),
        ("loss.clip_hi=0.3", "unknown key 'loss.clip_hi'; did you mean loss.clip_high?"),
        ("beta=0.1", "unknown key 'beta'; did you mean loss.beta?"),
        ("optimizer.lr=0.1", "unknown key 'optimizer.lr'; did you mean lr?"),
        ("every=1", "unknown key 'every'; did you mean eval.every or checkpoint.every?"),
        ("zzz=1", "unknown key 'zzz'; the keys are model, template, data.train"),
        ("steps", "'steps' is not of the form key=value"),
        ("=3", "'=3' is not of the form key=value"),
        ("data.eval=[a", "'data.eval=[a' is not valid YAML: "),
        ("model=!!python/name:os.system", "is not valid YAML: could not determine a constructor"),
    ],
)
def test_a_wrong_override_is_told_in_one_line(override, allowed):
    line = problem("tiny", override)
    assert line.startswith("command line: ") and allowed in line


def test_a_wrong_value_in_a_file_is_told_with_its_line(file):
    assert problem(file("recipe: tiny\nloss:\n  clip_low: abc\n")).startswith("my.yaml:3: loss.clip_low is 'abc'; it must be a number >= 0")
    assert problem(file("recipe: tiny\n\nloss: {bta: 1}\n")) == "my.yaml:3: unknown key 'loss.bta'; did you mean loss.beta?"


def test_a_clash_names_the_line_that_lost(file):
    line = problem(file("recipe: tiny\nprompts_per_step: 3\nsamples_per_prompt: 7\nupdates_per_rollout: 2\n"))
    assert line == "my.yaml:4: updates_per_rollout is 2; it must divide prompts_per_step * samples_per_prompt = 3 * 7 = 21"


def test_sampler_logprobs_are_allowed_with_their_correction():
    assert load_config("tiny", ["old_logprobs=sampler", "loss.tis_cap=2"]).config.old_logprobs == "sampler"


def test_all_problems_are_told_at_once(file):
    lines = problems(file("recipe: tiny\nmodle: x\nlr: fast\nlr: 1\n"), "steps", "loss={beta: x, clip_low: 9}", "eval.every=-1")
    starts = ["my.yaml:4: lr is given twice, first in line 3", "command line: 'steps' is not", "my.yaml:2: unknown key 'modle'"]
    starts += [
        "command line: loss.clip_low is 9;",
        "command line: loss.beta is 'x';",
        "my.yaml:3: lr is 'fast';",
        "command line: eval.every is -1;",
    ]
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines


def test_a_key_given_twice_is_an_error_however_it_is_written(file):
    assert "my.yaml:4: loss is given twice, first in line 2" in problem(file("recipe: tiny\nloss:\n  beta: 1\nloss:\n  delta: 2\n"))
    assert "my.yaml:3: loss.beta is given twice" in problem(file("recipe: tiny\nloss: {beta: 1}\nloss.beta: 2\n"))


def test_a_missing_file_lists_the_recipes(tmp_path):
    assert problem("tinny").startswith("no file and no recipe 'tinny'; did you mean tiny? the recipes are: ")
    assert problem(str(tmp_path)).startswith(f"{tmp_path} is a directory; give a YAML file or a recipe: ")


def test_an_unknown_base_recipe_is_told_with_its_line(file):
    assert problem(file("\nrecipe: tinny\n")).startswith("my.yaml:2: no recipe 'tinny'; did you mean tiny? ")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("lr: 1\nsteps: [1\nseed: 2\n", "my.yaml:3: not valid YAML: while parsing a flow sequence expected ',' or ']'"),
        ("lr: 1\n\tsteps: 2\n", "my.yaml:2: not valid YAML: "),
        (b"model: \xff\n", "my.yaml: not valid YAML: invalid start byte"),
        ("", "my.yaml: the file is empty"),
        ("# only a comment\n", "my.yaml: the file is empty"),
        ("- a\n- b\n", "my.yaml:1: expected `key: value` lines, found a list"),
        ("hello\n", "my.yaml:1: expected `key: value` lines, found the text 'hello'"),
        ("a: 1\n---\nb: 2\n", "my.yaml:2: not valid YAML: expected a single document"),
    ],
)
def test_a_file_that_is_no_settings_file_is_told_in_one_line(file, text, start):
    assert problem(file(text)).startswith(start)


def test_a_config_is_frozen_and_refuses_unknown_keys_when_built_in_python():
    config = load_config("tiny", []).config
    with pytest.raises(ValidationError):
        config.lr = 1.0
    with pytest.raises(ValidationError):
        Config(**dict(config), zzz=1)


def test_every_setting_is_read_somewhere():
    """As an attribute of a config, outside the file that declares it."""
    sources = "\n".join(
        path.read_text() for path in (Path(__file__).parents[1] / "fastgrpo").rglob("*.py") if not path.name.startswith("config")
    )
    for key in load_config("tiny", []).origins:
        leaf = key.rpartition(".")[2]
        assert re.search(rf"config\.{re.escape(key)}\b|(?:settings|loss)\.{leaf}\b", sources), f"nothing reads {key}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["checkpoint.best=greedy_pooled", "data.eval=[]"], "checkpoint.best is greedy_pooled; it needs problem sets in data.eval"),
        (["checkpoint.best=greedy_average", "eval.ways=[sampled]"], "and greedy in eval.ways"),
        (["learner.engine=deepspeed", "learner.offload=all"], "learner.offload=all needs learner.zero=3"),
        (["learner.engine=deepspeed", "learner.zero=3", "learner.compile=true"], "learner.compile needs whole weights"),
        (["learner.engine=deepspeed", "learner.zero=0", "dtype=bfloat16"], "set learner.zero=1"),
        (["rollout.weights=shared", "learner.engine=deepspeed", "learner.zero=3"], "rollout.weights=shared needs whole weights"),
        (["learner.lora_rank=8", "rollout.weights=shared"], "learner.lora_rank=8 trains adapters beside them: set rollout.weights=push"),
        (["learner.lora_targets=q_proj"], "learner.lora_targets is 'q_proj'; it needs learner.lora_rank above 0"),
        (["rollout.engine=vllm", "dtype=float64"], "rollout.engine=vllm computes in float32 or bfloat16, and dtype is float64"),
        (["reward.function=[verifier, a.py:f]", "reward.weights=[1]"], "it needs one weight for each of the 2 rewards"),
        (["reward.weights=[a]"], "reward.weights is ['a']; it must be a list of numbers, [] for none"),
        (["eval.ways=[greedy, beam]"], "it must be one or a list of sampled, greedy"),
    ],
)
def test_settings_that_contradict_each_other_are_told_in_one_line(settings, words):
    assert words in problem("tiny", *settings)
