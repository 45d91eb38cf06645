"""The sections of a config: settings of data, loss, rewards, engines, evaluation, checkpoints and health."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator


def as_tuple(given: object) -> object:
    """Lists of YAML as the tuples that frozen models hold."""
    return tuple(given) if isinstance(given, list) else given


RULES = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

Sources = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else as_tuple(given)),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One name or a list of them."""

Numbers = Annotated[tuple[float, ...], BeforeValidator(as_tuple)]


def _stays_below(run_dir: str) -> str:
    if ".." in Path(run_dir).parts:
        raise ValueError("it must not lead upwards with `..`; give a path below this directory, or an absolute one")
    return run_dir


RunDirectory = Annotated[str, AfterValidator(_stays_below)]


Way = Literal["sampled", "greedy"]
Ways = Annotated[
    tuple[Way, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else as_tuple(given)),
    WithJsonSchema({"anyOf": [{"enum": get_args(Way)}, {"type": "array", "minItems": 1, "items": {"enum": get_args(Way)}}]}),
]


Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]
Trackers = Annotated[
    tuple[Tracker, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else as_tuple(given)),
    WithJsonSchema({"anyOf": [{"enum": get_args(Tracker)}, {"type": "array", "items": {"enum": get_args(Tracker)}}]}),
]


class DataConfig(BaseModel):
    """the problems"""

    model_config = RULES
    train: str = Field(
        min_length=1, description="problems to train on: a name such as math12k, builtin:NAME@SPLIT, a file, or ORG/NAME[:CONFIG]@SPLIT"
    )
    eval: Sources = Field(default=(), description="problem sets to evaluate on, written as data.train is")
    problem: str = Field(default="problem", min_length=1, description="column that holds the question")
    answer: str = Field(default="answer", min_length=1, description="column that holds the gold answer")


class LossConfig(BaseModel):
    """the objective"""

    model_config = RULES
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
    """what a response is worth"""

    model_config = RULES
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
    """which groups are kept"""

    model_config = RULES
    refill: int = Field(default=0, ge=0, description="how often a group without signal is replaced by another prompt's, at most")


class RolloutConfig(BaseModel):
    """what samples the responses"""

    model_config = RULES
    engine: Literal["native", "vllm"] = Field(default="native", description="what samples the responses")
    weights: Literal["auto", "shared", "push"] = Field(
        default="auto", description="of vllm: one set with the learner, or copies after each step; auto shares where it can"
    )
    tensor_parallel: int = Field(default=1, ge=1, description="ranks that make up one vllm engine")
    sequences: int = Field(default=256, ge=1, description="responses that a vllm engine decodes at once, at most")
    cache_gib: float = Field(default=1.0, gt=0, description="KV cache of a vllm engine on one device, in GiB")
    fp32_head: bool = Field(default=True, description="vllm computes the logits of a bfloat16 model in float32, as the learner does")
    deadline: float = Field(default=600.0, gt=0, description="seconds without a sign of life after which a vllm engine is given up")
    restarts: int = Field(default=2, ge=0, description="how often a failed vllm engine is built again")


class LearnerConfig(BaseModel):
    """what computes gradients and updates the weights"""

    model_config = RULES
    engine: Literal["native", "deepspeed"] = Field(default="native", description="what computes gradients and updates the weights")
    zero: Literal[0, 1, 2, 3] = Field(default=2, description="what deepspeed spreads over ranks: optimizer (1), gradients (2), weights (3)")
    offload: Literal["none", "optimizer", "all"] = Field(default="none", description="what deepspeed keeps in host memory")
    recompute: bool = Field(default=False, description="compute activations again in the backward pass instead of keeping them")
    compile: bool = Field(default=False, description="torch.compile of the model's layers; the first packs wait for it")
    attention: Literal["auto", "flash2", "flash4", "varlen", "sdpa"] = Field(
        default="auto", description="what computes the attention of packs; auto takes the first of these that can be used"
    )
    lora_rank: int = Field(default=0, ge=0, description="train adapters of this rank beside frozen weights, which is LoRA; 0 trains all")
    lora_alpha: float = Field(default=32.0, gt=0, description="what adapters add is scaled by lora_alpha / lora_rank")
    lora_targets: Sources = Field(
        default=("all-linear",), min_length=1, description="modules that get an adapter, such as q_proj; all-linear leaves out the head"
    )

    @property
    def spreads_weights(self) -> bool:
        """Whether no rank has the weights whole."""
        return self.engine == "deepspeed" and self.zero == 3

    @field_validator("lora_alpha", "lora_targets")
    @classmethod
    def _of_adapters(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("lora_rank") == 0 and value != cls.model_fields[info.field_name].default:
            raise ValueError("it needs learner.lora_rank above 0, such as learner.lora_rank=16")
        return value

    def refusal(self, dtype: str) -> str:
        """What DeepSpeed would not compute of this on a model of `dtype`, or not exactly, and what to do; "" where it computes all."""
        if dtype not in ("float32", "bfloat16"):
            return f"learner.engine=deepspeed computes in float32 or bfloat16, not in {dtype}: set dtype, or learner.engine=native"
        if self.zero == 0 and dtype == "bfloat16":
            return "learner.zero=0 would add up bfloat16 gradients in bfloat16: set learner.zero=1, or learner.engine=native"
        if self.zero == 0 and self.offload != "none":
            return f"learner.offload={self.offload} needs learner.zero of 1 to 3, and zero is 0: without it nothing can be moved"
        if self.zero < 3 and self.offload == "all":
            return f"learner.offload=all needs learner.zero=3, and zero is {self.zero}: it moves the weights too"
        if self.compile and self.zero == 3:
            return "learner.compile needs whole weights, and learner.zero=3 spreads them: set one to another"
        return ""


def deepspeed_computes_this(learner: LearnerConfig, info: ValidationInfo) -> LearnerConfig:
    """A validator of `learner` for configs with a `dtype` before it."""
    why = learner.refusal(info.data["dtype"]) if "dtype" in info.data else ""
    if learner.engine == "deepspeed" and why:
        raise ValueError(why)
    return learner


class EvalConfig(BaseModel):
    """evaluation while training"""

    model_config = RULES
    every: int = Field(default=0, ge=0, description="steps between evaluations; 0 is only before and after training")
    ways: Ways = Field(default=("sampled", "greedy"), min_length=1, description="sampled at the training temperature, greedy, or both")
    verifier: Literal["fast", "math_verify"] = Field(default="math_verify", description="how evaluation compares answers")


class LogConfig(BaseModel):
    """where a run is shown"""

    model_config = RULES
    trackers: Trackers = Field(default=(), description="where the numbers of metrics.jsonl are shown, too; a list")


class SavingConfig(BaseModel):
    """checkpoints"""

    model_config = RULES
    every: int = Field(default=10, ge=0, description="steps between checkpoints; 0 is only the last")
    keep: int = Field(default=2, ge=1, description="newest checkpoints that are kept; the best is kept beside them")
    before: float | None = Field(
        default=None,
        gt=0,
        description="seconds from its start by which the run has saved and ended, as a queue asks for; null is none",
    )


class CheckpointConfig(SavingConfig):
    """checkpoints"""

    best: Literal["none", "greedy_average", "greedy_pooled", "sampled_average", "sampled_pooled"] = Field(
        default="none", description="keep the checkpoint with the highest such accuracy: the mean over problem sets, or over problems"
    )


class WatchConfig(BaseModel):
    """when a run is given up"""

    model_config = RULES
    phase_seconds: float = Field(default=7200.0, gt=0, description="a phase of a step that takes longer is a hang, and ends the run")
    skipped_updates: int = Field(
        default=3, ge=1, description="stop after so many updates in a row whose gradient is not finite; each is skipped"
    )


class HealthConfig(WatchConfig):
    """when a run is given up"""

    steps_without_signal: int = Field(default=20, ge=1, description="stop after so many steps in which no group had two different rewards")
