"""What an experiment is: a YAML file of this folder with arms, measures, curves and claims, and nothing that computes.

An arm is settings on top of a recipe. A claim compares one measure of two arms seed by seed; its margin is stated before any run.
"""

from __future__ import annotations

from importlib import resources
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from fastgrpo.config_sections import RULES, Sources, as_tuple
from fastgrpo.errors import InputError
from fastgrpo.settings_file import read_yaml

Settings = dict[str, str | int | float]


class Arm(BaseModel):
    model_config = RULES
    label: str = Field(description="in tables and figures")
    settings: Settings = Field(default={}, description="on top of the recipe, at both scales")
    paper: Settings = Field(default={}, description="more of them at the paper's scale")
    toy: Settings = Field(default={}, description="more of them at toy scale")
    seeds: int = Field(ge=1, description="runs, with the seeds 0, 1, ...")


class Scale(BaseModel):
    model_config = RULES
    recipe: str
    settings: Settings = {}


class Measure(BaseModel):
    """A number of a run: the mean of a column of metrics.jsonl over the last steps, or a column of its last evaluation."""

    model_config = RULES
    label: str
    column: str
    last: int = Field(default=1, ge=1, description="steps, from the end, over which a column of steps is averaged")
    set: str = Field(default="", description="problem set of the evaluation; the column is then one of an evaluation")
    way: str = Field(default="greedy", description="of the evaluation, such as greedy or sampled")


class Claim(BaseModel):
    """That a measure of the arm `more` exceeds that of `than` by more than `margin`; below 0 it says how much it may fall short."""

    model_config = RULES
    text: str
    measure: str
    more: str
    than: str
    margin: float = 0.0


class Experiment(BaseModel):
    model_config = RULES
    title: str
    source: str = Field(description="figure or table of the paper")
    paper: Scale
    toy: Scale
    texts: int = Field(description="that a toy base reads")
    quick: Settings = Field(description="on top of the toy settings, for a look in a minute that proves nothing")
    arms: dict[str, Arm]
    measures: dict[str, Measure]
    curves: Sources = Field(description="measures that are also drawn step by step")
    claims: Annotated[tuple[Claim, ...], BeforeValidator(as_tuple)]

    @model_validator(mode="after")
    def _names_exist(self) -> Experiment:
        measures = {*self.curves, *(claim.measure for claim in self.claims)}
        arms = {arm for claim in self.claims for arm in (claim.more, claim.than)}
        unknown = (measures - self.measures.keys()) | (arms - self.arms.keys())
        if unknown:
            raise ValueError(f"no such measure or arm: {', '.join(sorted(unknown))}")
        return self


def names() -> list[str]:
    files = resources.files("fastgrpo.experiments").iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in files if entry.name.endswith(".yaml"))


def load_experiment(name: str) -> Experiment:
    """Raises InputError for a name that no experiment has."""
    if name not in names():
        raise InputError(f"experiment {name!r} does not exist; there are {', '.join(names())}")
    text = resources.files("fastgrpo.experiments").joinpath(f"{name}.yaml").read_text()
    return Experiment.model_validate(read_yaml(text))
