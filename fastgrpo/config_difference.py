"""What differs between two configs, setting by setting."""

from __future__ import annotations

from dataclasses import dataclass

from fastgrpo.config import ResolvedConfig
from fastgrpo.errors import InputError


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting whose values differ, each with its origin."""

    key: str
    left: object
    right: object
    left_origin: str
    right_origin: str


def differences(left: ResolvedConfig, right: ResolvedConfig) -> list[Difference]:
    """In the order of the settings. Raises InputError where one is of training and the other of pretraining: they share few keys."""
    if type(left.config) is not type(right.config):
        kinds = [each.config.recipes.folder.rpartition("/")[2].replace("recipes", "train") for each in (left, right)]
        raise InputError(f"{left.name} has settings of `fastgrpo {kinds[0]}`, {right.name} of `fastgrpo {kinds[1]}`: give two of one kind")
    return [
        Difference(key, one, other, left.origins[key], right.origins[key])
        for key in left.origins
        if (one := left.value(key)) != (other := right.value(key))
    ]
