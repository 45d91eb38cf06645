"""The settings of continual pretraining. Learner, checkpoints and watch are those of training; a step is one optimizer update."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from fastgrpo.config_sections import (
    RULES,
    LearnerConfig,
    LogConfig,
    LossConfig,
    RunDirectory,
    SavingConfig,
    Sources,
    WatchConfig,
    deepspeed_computes_this,
)
from fastgrpo.settings_file import PRETRAINING, Recipes


class TextConfig(BaseModel):
    """the texts"""

    model_config = RULES
    train: Sources = Field(
        min_length=1, description="texts to train on: .txt files, files with a column of texts, problem sets, builtin:worked@train; a list"
    )
    eval: Sources = Field(default=(), description="texts whose loss is measured, written as data.train is")
    text: str = Field(default="text", min_length=1, description="column of whole texts; where there is none, question and answer make one")
    problem: str = Field(default="problem", min_length=1, description="column that holds the question")
    answer: str = Field(default="answer", min_length=1, description="column that holds the answer, such as a worked solution")
    separator: str = Field(description="text between question and answer, in double quotes for the escape \\n")


class LossEvalConfig(BaseModel):
    """the loss on held-out texts"""

    model_config = RULES
    every: int = Field(default=0, ge=0, description="updates between measurements of data.eval; 0 is only before and after training")


class PretrainConfig(BaseModel):
    """`loss` and `temperature` are no settings: with advantage 1 and no old policy, they make the policy loss the cross-entropy."""

    model_config = RULES
    recipes: ClassVar[Recipes] = PRETRAINING
    loss: ClassVar[LossConfig] = LossConfig(type="token_mean")
    temperature: ClassVar[float] = 1.0

    model: str = Field(min_length=1, description="builtin:base, a directory, or ORG/NAME on the Hub")
    data: TextConfig
    epochs: int = Field(ge=1, description="passes over all texts, each in an order of its own")
    context: int = Field(ge=1, description="tokens that the model reads at once; longer texts are cut, and no token is lost or read twice")
    tokens_per_update: int = Field(ge=1, description="predicted tokens of an optimizer update, over all devices, at least")
    lr: float = Field(gt=0, description="highest learning rate")
    warmup: int = Field(ge=0, description="updates in which the learning rate rises to lr")
    schedule: Literal["constant", "linear", "cosine"] = Field(description="of the learning rate after that, the last two down to 0")
    grad_clip: float = Field(gt=0, description="largest gradient norm of an update")
    dtype: Literal["float32", "bfloat16", "float64"] = Field(description="in which the model computes")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the order of texts")
    run_dir: RunDirectory = Field(default="", description='where the run is written; "" is runs/RECIPE-TIME')
    tokens_per_pack: int = Field(default=16384, ge=1, description="tokens of one forward pass; changes speed and memory, never the result")
    learner: LearnerConfig = LearnerConfig()
    eval: LossEvalConfig = LossEvalConfig()
    checkpoint: SavingConfig = SavingConfig()
    log: LogConfig = LogConfig()
    health: WatchConfig = WatchConfig()

    _deepspeed_computes_this = field_validator("learner")(deepspeed_computes_this)

    @field_validator("tokens_per_update")
    @classmethod
    def _holds_a_text(cls, tokens: int, info: ValidationInfo) -> int:
        if tokens < info.data.get("context", 0):
            raise ValueError(f"it must be at least context = {info.data['context']}, or an update could have no text to begin with")
        return tokens
