"""The settings of a run: which exist, what each allows, and where each value came from.

A setting that decides the experiment has no default: a recipe or the user's own file states it. Nested keys are written with
dots (`loss.beta`). Numbers are global, never per device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from fastgrpo.config_errors import invalid, unknown
from fastgrpo.errors import InputError
from fastgrpo.settings_file import Setting, read_overrides, read_source, yaml_line

_RULES = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

Sources = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else _as_tuple(given))]
"""One name or a list of them."""

Numbers = Annotated[tuple[float, ...], BeforeValidator(lambda given: _as_tuple(given))]


Way = Literal["sampled", "greedy"]
Ways = Annotated[tuple[Way, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else _as_tuple(given))]


class DataConfig(BaseModel):
    model_config = _RULES
    train: str = Field(min_length=1, description="problems to train on: builtin:NAME@SPLIT, a file, or ORG/NAME@SPLIT")
    eval: Sources = Field(default=(), description="problem sets to evaluate on, written as data.train is")
    problem: str = Field(default="problem", min_length=1, description="column that holds the question")
    answer: str = Field(default="answer", min_length=1, description="column that holds the gold answer")


class LossConfig(BaseModel):
    model_config = _RULES
    type: Literal["dr_grpo", "grpo", "grpo_no_std", "grpo_no_length", "token_mean"] = Field(
        description="how advantages are scaled and tokens averaged"
    )
    clip_low: float = Field(default=0.2, ge=0, le=1, description="a ratio below 1 - clip_low is clipped")
    clip_high: float = Field(default=0.2, ge=0, description="a ratio above 1 + clip_high is clipped")
    delta: float | None = Field(default=None, gt=1, description="cap of the ratio where the advantage is negative; null is no cap")
    beta: float = Field(default=0.0, ge=0, description="weight of the KL penalty; above 0 a reference model is loaded")
    entropy_coef: float = Field(default=0.0, ge=0, description="weight of the entropy bonus")
    tis_cap: float | None = Field(default=None, gt=0, description="cap of the weight exp(old - sampler logprob); null is no correction")
    truncation: Literal["zero_reward", "mask", "keep", "soft"] = Field(
        default="zero_reward", description="what becomes of a response cut off at max_new_tokens"
    )

    @field_validator("delta")
    @classmethod
    def _above_the_clip(cls, delta: float | None, info: ValidationInfo) -> float | None:
        clip_high = info.data.get("clip_high")
        if delta is not None and clip_high is not None and delta <= 1 + clip_high:
            raise ValueError(f"it must be above 1 + loss.clip_high = {1 + clip_high:g}, the ratio at which clipping begins")
        return delta


class RewardConfig(BaseModel):
    model_config = _RULES
    function: Sources = Field(
        default=(),
        description="FILE.py:NAME of a reward function, or a list; `verifier` is the built-in one; empty, without url, is it alone",
    )
    url: str = Field(default="", description="a server that is sent responses as JSON and answers with rewards")
    weights: Numbers = Field(default=(), description="one for each reward function, then one for the url; empty is 1 each")
    deadline: float = Field(default=60.0, gt=0, description="seconds for one call of a reward function or of the url")
    workers: int = Field(default=2, ge=1, description="processes that run reward functions")
    compat: bool = Field(default=False, description="repeat the paper's grader where it is plainly wrong, too")
    preflight: bool = Field(default=True, description="before training, check that golds grade as right and wrong answers as wrong")

    @field_validator("weights")
    @classmethod
    def _one_each(cls, weights: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        rewards = len(info.data.get("function", ())) + bool(info.data.get("url"))
        if weights and len(weights) != rewards:
            raise ValueError(f"it needs one weight for each of the {rewards} rewards in reward.function and reward.url")
        return weights


class SamplingConfig(BaseModel):
    model_config = _RULES
    refill: int = Field(default=0, ge=0, description="how often a group without signal is replaced by another prompt's, at most")


class RolloutConfig(BaseModel):
    model_config = _RULES
    engine: Literal["native"] = Field(default="native", description="what samples the responses")


class LearnerConfig(BaseModel):
    model_config = _RULES
    engine: Literal["native"] = Field(default="native", description="what computes gradients and updates the weights")


class EvalConfig(BaseModel):
    model_config = _RULES
    every: int = Field(default=0, ge=0, description="steps between evaluations; 0 is only before and after training")
    ways: Ways = Field(default=("sampled", "greedy"), min_length=1, description="sampled at the training temperature, greedy, or both")
    verifier: Literal["fast", "math_verify"] = Field(default="math_verify", description="how evaluation compares answers")


class CheckpointConfig(BaseModel):
    model_config = _RULES
    every: int = Field(default=0, ge=0, description="steps between checkpoints; 0 is only the last")
    best: Literal["none", "greedy_average", "greedy_pooled", "sampled_average", "sampled_pooled"] = Field(
        default="none", description="keep the checkpoint with the highest such accuracy: the mean over problem sets, or over problems"
    )


class HealthConfig(BaseModel):
    model_config = _RULES
    steps_without_signal: int = Field(default=20, ge=1, description="stop after so many steps in which no group had two different rewards")


class Config(BaseModel):
    model_config = _RULES
    model: str = Field(min_length=1, description="builtin:base, a directory, or ORG/NAME on the Hub")
    template: Literal["r1", "qwen_math", "no", "4-shot", "open-reasoner-zero", "prime-zero"] = Field(
        description="the prompt around the question"
    )
    data: DataConfig
    verifier: Literal["fast", "math_verify"] = Field(description="how an answer is compared with the gold answer")
    max_prompt_tokens: int = Field(ge=1, description="longer prompts are dropped and counted")
    max_new_tokens: int = Field(ge=1, description="generation budget of a response, in tokens")
    temperature: float = Field(gt=0, description="training samples, so it needs a temperature; greedy is what evaluation does by itself")
    prompts_per_step: int = Field(ge=1, description="prompts of a step, over all devices")
    samples_per_prompt: int = Field(ge=2, description="responses of a group; a group of 1 has no baseline")
    updates_per_rollout: int = Field(ge=1, description="optimizer updates of a step")
    loss: LossConfig
    old_logprobs: Literal["learner", "sampler"] = Field(default="learner", description="whose logprobs stand below the ratio")
    lr: float = Field(gt=0, description="learning rate, constant")
    grad_clip: float = Field(gt=0, description="largest gradient norm of an update")
    dtype: Literal["float32", "bfloat16", "float64"] = Field(description="in which the model computes")
    steps: int = Field(ge=1, description="rollout batches")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of sampling and of data order")
    run_dir: str = Field(default="", description='where the run is written; "" is runs/RECIPE-TIME')
    tokens_per_pack: int = Field(default=16384, ge=1, description="tokens of one forward pass; changes speed and memory, never the result")
    sampling: SamplingConfig = SamplingConfig()
    reward: RewardConfig = RewardConfig()
    rollout: RolloutConfig = RolloutConfig()
    learner: LearnerConfig = LearnerConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    health: HealthConfig = HealthConfig()

    @field_validator("updates_per_rollout")
    @classmethod
    def _splits_the_responses(cls, updates: int, info: ValidationInfo) -> int:
        prompts, samples = info.data.get("prompts_per_step"), info.data.get("samples_per_prompt")
        if prompts is not None and samples is not None and prompts * samples % updates:
            raise ValueError(f"it must divide prompts_per_step * samples_per_prompt = {prompts} * {samples} = {prompts * samples}")
        return updates

    @field_validator("old_logprobs")
    @classmethod
    def _sampler_needs_correction(cls, old_logprobs: str, info: ValidationInfo) -> str:
        loss = info.data.get("loss")
        if old_logprobs == "sampler" and loss is not None and loss.tis_cap is None:
            raise ValueError("it needs loss.tis_cap, for example loss.tis_cap=2.0; or use old_logprobs=learner")
        return old_logprobs


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A checked config. `origins` maps every dotted key to "default", "recipe NAME", "FILE:LINE" or "command line"."""

    config: Config
    origins: Mapping[str, str]
    name: str


def load_config(source: str | None, overrides: Sequence[str]) -> ResolvedConfig:
    """Settings of `source` (a packaged recipe, a YAML file, or None for the recipe `tiny`) with `key=value` overrides on top.

    Raises InputError with one line for each thing that is wrong.
    """
    source = "tiny" if source is None else source
    fields = dict(_fields(Config))
    sections = {key.rpartition(".")[0] for key in fields} - {""}
    reading = read_source(source, sections).then(read_overrides(overrides, sections))
    known = {key: setting for key, setting in reading.settings.items() if key in fields}
    problems = [*reading.problems, *(unknown(key, setting, fields) for key, setting in reading.settings.items() if key not in fields)]
    config = None
    try:
        config = Config.model_validate(_nested(known, sections))
    except ValidationError as error:
        problems += invalid(error, source, known, fields, skip_missing=reading.unreadable)
    if problems or config is None:
        raise InputError("\n".join(problems))
    return ResolvedConfig(config, {key: known[key].origin if key in known else "default" for key in fields}, Path(source).stem)


def to_yaml(resolved: ResolvedConfig) -> str:
    """Every setting, nested, with its origin as a comment. Loads back to the same config."""
    lines, section = [], ""
    for key, origin in resolved.origins.items():
        parent, _, name = key.rpartition(".")
        if parent and parent != section:
            lines.append(f"{parent}:")
        section = parent
        value = getattr(getattr(resolved.config, parent) if parent else resolved.config, name)
        line = ("  " if parent else "") + yaml_line(name, value)
        lines.append(f"{line:<48}  # {' '.join(origin.split())}")
    return "\n".join(lines) + "\n"


def _as_tuple(given: object) -> object:
    return tuple(given) if isinstance(given, list) else given


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every setting, in order."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def _nested(settings: Mapping[str, Setting], sections: set[str]) -> dict:
    """All sections are present, so that a missing key is reported under its own name."""
    values: dict = {section: {} for section in sections}
    for key, setting in settings.items():
        section, _, name = key.rpartition(".")
        (values[section] if section else values)[name] = setting.value
    return values
