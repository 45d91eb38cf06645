"""What an experiment is: a YAML file of this folder with arms, measures, curves, bars and claims, and nothing that computes.

An arm is one command of fastgrpo with its settings: a training by default, or a pretraining, an evaluation, an analysis. In a setting,
`run:ARM` is the directory of an earlier arm's run, and `{seed}` the run's own seed. A claim compares one measure of two arms seed by
seed; its margin is stated before any run.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from fastgrpo.config_sections import RULES, Sources, as_tuple
from fastgrpo.errors import InputError
from fastgrpo.settings_file import read_yaml

Kind = Literal["train", "pretrain", "eval", "analyze"]
Scale = Literal["toy", "paper"]
Settings = dict[str, str | int | float | bool]
"""As the command takes them. Its first word is a setting too: `recipe` of training and pretraining, `model` of eval, `what` of analyze."""

Seeds = Annotated[
    dict[Scale, Annotated[int, Field(ge=1)]],
    BeforeValidator(lambda given: {"toy": given, "paper": given} if isinstance(given, int) else given),
]

EARLIER = re.compile(r"run:(?P<arm>[\w-]+)")


class Arm(BaseModel):
    model_config = RULES
    label: str = Field(description="in tables and figures")
    toy_label: str = Field(default="", description="at toy scale, where the label names what is not there")
    kind: Kind = "train"
    settings: Settings = Field(default={}, description="on top of what all arms of the kind have, at both scales")
    paper: Settings = Field(default={}, description="more of them at the paper's scale")
    toy: Settings = Field(default={}, description="more of them at toy scale")
    seeds: Seeds = Field(default={"toy": 1, "paper": 1}, description="runs, with the seeds 0, 1, ...; one number, or one for each scale")
    only: Literal["", "toy", "paper"] = Field(default="", description="the scale that has this arm; both by default")
    published: str = Field(default="", description="the model of the paper's tables whose numbers stand beside")


class Measure(BaseModel):
    """A number of a run: the mean of a column over the last rows of a kind, such as steps, or the draws of an analysis by temperature."""

    model_config = RULES
    label: str
    of: Literal["step", "evaluation", "answering", "exploration", "reflection"] = "step"
    where: Settings = Field(default={}, description="what its rows have, such as set and way of evaluations, or template, or temperature")
    column: str = Field(description="with dots into what is nested")
    last: int = Field(default=1, ge=1, description="rows, from the end, that are averaged")
    when: Literal["end", "start", "gain"] = Field(
        default="end", description="the last rows, or as many of the first, or how much they differ"
    )
    arms: Sources = Field(default=(), description="those that it is of, such as those of one template; all by default")
    only: Literal["", "toy", "paper"] = ""


class Claim(BaseModel):
    """That a measure of the arm `more` exceeds that of `than` by more than `margin`; below 0 it says how much it may fall short.

    `against` is the measure of `than`, where it is another, as when two templates of one arm are compared.
    """

    model_config = RULES
    text: str
    measure: str
    more: str
    than: str
    against: str = ""
    margin: float = 0.0

    @property
    def measures(self) -> tuple[str, str]:
        return self.measure, self.against or self.measure


class Experiment(BaseModel):
    model_config = RULES
    title: str
    source: str = Field(description="figure or table of the paper")
    paper: dict[Kind, Settings] = Field(description="what all arms of a kind have")
    toy: dict[Kind, Settings]
    texts: int = Field(description="that a toy base reads")
    quick: dict[Kind, Settings] = Field(description="on top of the toy settings, for a look in a minute that proves nothing")
    arms: dict[str, Arm]
    measures: dict[str, Measure]
    curves: Sources = Field(default=(), description="measures that are drawn over steps or temperatures, a panel each")
    bars: dict[str, Sources] = Field(default={}, description="panels of bars by title: a group for each measure, a bar for each arm")
    claims: Annotated[tuple[Claim, ...], BeforeValidator(as_tuple)] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Experiment:
        measures = {
            *self.curves,
            *(name for names in self.bars.values() for name in names),
            *(name for claim in self.claims for name in claim.measures),
        }
        arms = {arm for claim in self.claims for arm in (claim.more, claim.than)}
        arms |= {arm for measure in self.measures.values() for arm in measure.arms}
        unknown = (measures - self.measures.keys()) | (arms - self.arms.keys())
        if unknown:
            raise ValueError(f"no such measure or arm: {', '.join(sorted(unknown))}")
        for scale in ("toy", "paper"):
            self._earlier_exist(scale)
        return self

    def _earlier_exist(self, scale: Scale) -> None:
        earlier: set[str] = set()
        for arm in self.at(scale).arms:
            missing = sorted(earlier_arms(self.settings_of(scale, arm)) - earlier)
            if missing:
                raise ValueError(f"{arm} needs run:{missing[0]}, and no arm before it has that name at {scale} scale")
            earlier.add(arm)

    def at(self, scale: Scale) -> Experiment:
        """Without the arms and measures of the other scale, and what is said of them. A toy has no published numbers beside it."""
        arms = {name: arm for name, arm in self.arms.items() if arm.only in ("", scale)}
        if scale == "toy":
            arms = {name: arm.model_copy(update={"label": arm.toy_label or arm.label, "published": ""}) for name, arm in arms.items()}
        measures = {name: measure for name, measure in self.measures.items() if measure.only in ("", scale)}
        bars = {title: tuple(name for name in names if name in measures) for title, names in self.bars.items()}
        found = {
            "arms": arms,
            "measures": measures,
            "curves": tuple(name for name in self.curves if name in measures),
            "bars": {title: names for title, names in bars.items() if names},
            "claims": tuple(
                claim for claim in self.claims if measures.keys() >= {*claim.measures} and arms.keys() >= {claim.more, claim.than}
            ),
        }
        return self.model_copy(update=found)

    def settings_of(self, scale: Scale, arm: str, quick: bool = False) -> Settings:
        """Of all its runs, before `run:` and `{seed}` are filled in."""
        of_arm = self.arms[arm]
        common, own = (self.toy, of_arm.toy) if scale == "toy" else (self.paper, of_arm.paper)
        return {**common.get(of_arm.kind, {}), **of_arm.settings, **own, **(self.quick.get(of_arm.kind, {}) if quick else {})}


def earlier_arms(settings: Settings) -> set[str]:
    return {found["arm"] for value in settings.values() if isinstance(value, str) for found in EARLIER.finditer(value)}


def names() -> list[str]:
    files = resources.files("fastgrpo.experiments").iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in files if entry.name.endswith(".yaml"))


def load_experiment(name: str) -> Experiment:
    """Raises InputError for a name that no experiment has."""
    if name not in names():
        raise InputError(f"experiment {name!r} does not exist; there are {', '.join(names())}")
    text = resources.files("fastgrpo.experiments").joinpath(f"{name}.yaml").read_text()
    return Experiment.model_validate(read_yaml(text))
