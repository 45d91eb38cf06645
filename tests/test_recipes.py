"""The packaged recipes: the numbers of arXiv:2503.20783, one table for all, and what a recipe cannot give is refused in one line."""

import pytest

from fastgrpo.config import load_config
from fastgrpo.errors import InputError
from fastgrpo.model_source import require_model
from fastgrpo.problem_sets import PRESETS
from fastgrpo.settings_file import TRAINING

PRESETS_OF_THE_PAPER = {  # model, template, training set, verifier, ZeRO
    "oat-zero-7b": ("Qwen/Qwen2.5-Math-7B", "qwen_math", "math_lvl3to5", "math_verify", 2),
    "oat-zero-7b-r1": ("Qwen/Qwen2.5-Math-7B", "r1", "math_lvl3to5", "math_verify", 2),
    "oat-zero-1.5b": ("Qwen/Qwen2.5-Math-1.5B", "qwen_math", "math12k", "fast", 2),
    "oat-zero-1.5b-r1": ("Qwen/Qwen2.5-Math-1.5B", "r1", "math12k", "fast", 2),
    "oat-zero-3b": ("./models/Llama-3.2-3B-NuminaQA", "r1", "math12k", "fast", 3),
    "drgrpo-vs-grpo-1.5b": ("Qwen/Qwen2.5-1.5B", "r1", "math12k", "fast", 2),
    "big-math-7b": ("Qwen/Qwen2.5-7B", "r1", "big_math", "fast", 2),
    "template-grid-1.5b": ("Qwen/Qwen2.5-Math-1.5B", "qwen_math", "math12k", "fast", 2),
}
ALIKE = {
    "steps": 290,
    "prompts_per_step": 128,
    "samples_per_prompt": 8,
    "updates_per_rollout": 8,
    "temperature": 1.0,
    "max_prompt_tokens": 1024,
    "max_new_tokens": 3000,
    "loss.type": "dr_grpo",
    "loss.clip_low": 0.2,
    "loss.clip_high": 0.2,
    "loss.delta": None,
    "loss.beta": 0.0,
    "loss.entropy_coef": 0.0,
    "loss.tis_cap": None,
    "loss.truncation": "zero_reward",
    "old_logprobs": "learner",
    "sampling.refill": 0,
    "lr": 1e-6,
    "grad_clip": 1.0,
    "dtype": "bfloat16",
    "rollout.engine": "vllm",
    "learner.engine": "deepspeed",
    "learner.offload": "none",
    "learner.recompute": True,
    "data.eval": ("aime24", "amc", "math500", "minerva", "olympiad_bench"),
    "eval.every": 16,
    "eval.ways": ("greedy",),
    "eval.verifier": "math_verify",
}


def value(config, key: str):
    for name in key.split("."):
        config = getattr(config, name)
    return config


def test_every_recipe_but_tiny_is_in_the_table():
    assert {*PRESETS_OF_THE_PAPER, "tiny"} == set(TRAINING.names())


@pytest.mark.parametrize("name", PRESETS_OF_THE_PAPER)
def test_a_recipe_holds_the_numbers_of_the_paper(name):
    config = load_config(name, []).config
    own = (config.model, config.template, config.data.train, config.verifier, config.learner.zero)
    assert own == PRESETS_OF_THE_PAPER[name]
    assert {key: value(config, key) for key in ALIKE} == ALIKE
    assert {config.data.train, *config.data.eval} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS_OF_THE_PAPER)
def test_no_setting_that_decides_the_experiment_is_left_to_a_default(name):
    origins = load_config(name, []).origins
    decisive = [key for key in ALIKE if origins[key] == "default"]
    assert set(decisive) <= {
        "loss.delta", "loss.entropy_coef", "loss.tis_cap", "loss.truncation", "old_logprobs", "sampling.refill", "learner.offload"
    }  # fmt: skip


@pytest.mark.parametrize("template", ["r1", "qwen_math", "no"])
@pytest.mark.parametrize("questions", ["orz57k", "math12k", "gsm8k", "asdiv"])
def test_the_grid_takes_every_template_and_question_set(template, questions):
    config = load_config("template-grid-1.5b", [f"template={template}", f"data.train={questions}"]).config
    assert (config.template, config.data.train) == (template, questions) and questions in PRESETS


def test_the_two_arms_of_the_comparison_differ_in_the_loss_alone():
    one, other = (load_config("drgrpo-vs-grpo-1.5b", overrides).config for overrides in ([], ["loss.type=grpo"]))
    assert other.model_copy(update={"loss": one.loss}) == one and other.loss.type == "grpo"


def test_the_3b_recipe_is_refused_until_its_base_model_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = load_config("oat-zero-3b", []).config.model
    with pytest.raises(InputError) as caught:
        require_model(model)
    assert str(caught.value).startswith(f"model={model}: no such directory") and "\n" not in str(caught.value)
