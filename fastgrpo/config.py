"""The settings of a run: which exist, what each allows, and where each value came from.

A setting that decides the experiment has no default: a recipe or the user's own file states it. Nested keys are written with
dots (`loss.beta`). Numbers are global, never per device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from fastgrpo.config_errors import invalid, unknown
from fastgrpo.config_sections import (
    RULES,
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    HealthConfig,
    LearnerConfig,
    LogConfig,
    LossConfig,
    RewardConfig,
    RolloutConfig,
    RunDirectory,
    SamplingConfig,
    deepspeed_computes_this,
)
from fastgrpo.errors import InputError
from fastgrpo.settings_file import TRAINING, Recipes, Setting, read_overrides, read_source, yaml_line

if TYPE_CHECKING:
    from fastgrpo.config_pretrain import PretrainConfig


class Config(BaseModel):
    model_config = RULES
    recipes: ClassVar[Recipes] = TRAINING
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
    run_dir: RunDirectory = Field(default="", description='where the run is written; "" is runs/RECIPE-TIME')
    tokens_per_pack: int = Field(default=16384, ge=1, description="tokens of one forward pass; changes speed and memory, never the result")
    sampling: SamplingConfig = SamplingConfig()
    reward: RewardConfig = RewardConfig()
    learner: LearnerConfig = LearnerConfig()
    rollout: RolloutConfig = RolloutConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    health: HealthConfig = HealthConfig()

    _deepspeed_computes_this = field_validator("learner")(deepspeed_computes_this)

    @field_validator("updates_per_rollout")
    @classmethod
    def _splits_the_responses(cls, updates: int, info: ValidationInfo) -> int:
        prompts, samples = info.data.get("prompts_per_step"), info.data.get("samples_per_prompt")
        if prompts is not None and samples is not None and prompts * samples % updates:
            raise ValueError(f"it must divide prompts_per_step * samples_per_prompt = {prompts} * {samples} = {prompts * samples}")
        return updates

    @field_validator("rollout")
    @classmethod
    def _vllm_computes_in_this(cls, rollout: RolloutConfig, info: ValidationInfo) -> RolloutConfig:
        if rollout.engine == "vllm" and info.data.get("dtype") == "float64":
            raise ValueError("rollout.engine=vllm computes in float32 or bfloat16, and dtype is float64: change one of them")
        learner = info.data.get("learner")
        if rollout.weights == "shared" and learner is not None and learner.spreads_weights:
            raise ValueError(
                "rollout.weights=shared needs whole weights on every rank, and learner.zero=3 spreads them: set one to another"
            )
        if rollout.weights == "shared" and learner is not None and learner.lora_rank:
            raise ValueError(
                "rollout.weights=shared gives an engine the learner's own weights, and "
                f"learner.lora_rank={learner.lora_rank} trains adapters beside them: set rollout.weights=push"
            )
        return rollout

    @field_validator("checkpoint")
    @classmethod
    def _best_is_evaluated(cls, checkpoint: CheckpointConfig, info: ValidationInfo) -> CheckpointConfig:
        data, evaluation = info.data.get("data"), info.data.get("eval")
        if checkpoint.best != "none" and data is not None and evaluation is not None:
            way = checkpoint.best.partition("_")[0]
            if not data.eval or way not in evaluation.ways:
                raise ValueError(f"checkpoint.best is {checkpoint.best}; it needs problem sets in data.eval, and {way} in eval.ways")
        return checkpoint

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

    config: Config | PretrainConfig
    origins: Mapping[str, str]
    name: str

    def value(self, key: str) -> object:
        """Of a dotted key."""
        section, _, name = key.rpartition(".")
        return getattr(getattr(self.config, section) if section else self.config, name)

    def values(self) -> dict[str, object]:
        """Every setting by its dotted key, in order."""
        return {key: self.value(key) for key in self.origins}


def load_config(source: str | None, overrides: Sequence[str], kind: type[Config] | type[PretrainConfig] = Config) -> ResolvedConfig:
    """Settings of `source` (a packaged recipe, a YAML file, or None for the default recipe) with `key=value` overrides on top.

    `kind` is what to make of them. Raises InputError with one line for each thing that is wrong.
    """
    recipes = kind.recipes
    source = recipes.default if source is None else source
    fields = fields_of(kind)
    sections = {key.rpartition(".")[0] for key in fields} - {""}
    reading = read_source(source, sections, recipes).then(read_overrides(overrides, sections))
    known = {key: setting for key, setting in reading.settings.items() if key in fields}
    problems = [*reading.problems, *(unknown(key, setting, fields) for key, setting in reading.settings.items() if key not in fields)]
    config = None
    try:
        config = kind.model_validate(_nested(known, sections))
    except ValidationError as error:
        problems += invalid(error, source, known, fields, recipes, skip_missing=reading.unreadable)
    if problems or config is None:
        raise InputError("\n".join(problems))
    name = source if source in recipes.names() else Path(source).stem
    return ResolvedConfig(config, {key: known[key].origin if key in known else "default" for key in fields}, name)


def to_yaml(resolved: ResolvedConfig) -> str:
    """Every setting, nested, with its origin as a comment. Loads back to the same config."""
    lines, section = [], ""
    for key, value in resolved.values().items():
        parent, _, name = key.rpartition(".")
        if parent and parent != section:
            lines.append(f"{parent}:")
        section = parent
        line = ("  " if parent else "") + yaml_line(name, value)
        lines.append(f"{line:<48}  # {' '.join(resolved.origins[key].split())}")
    return "\n".join(lines) + "\n"


def fields_of(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """The field of every setting by its dotted key, in order."""
    return dict(_fields(kind))


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
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
