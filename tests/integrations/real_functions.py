"""The loss functions of verl and OpenRLHF themselves, without what their packages import around them (Ray, flash-attn, ...).

verl's file of losses is run with stand-ins for the names that it only passes on: configuration classes, Ray, tensordict.
"""

import importlib
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest

PLACE = Path(sys.prefix) / "rivals"  # where `make` puts them, apart, since they bring packages named `tests` along


def bare_packages(*names: str) -> None:
    """Makes packages importable without running their __init__."""
    root = PLACE if (PLACE / names[0]).exists() else None
    if root is None:
        pytest.skip(f"{names[0]} is not in {PLACE}: make install")
    for name in names:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(root.joinpath(*name.split(".")))]


def openrlhf_policy_loss():
    bare_packages("openrlhf", "openrlhf.models")
    from openrlhf.models.loss import PolicyLoss

    return PolicyLoss


class ActorConfig(SimpleNamespace):
    """What verl's losses read of their configuration."""

    def get(self, name: str, default=None):
        return getattr(self, name, default)


def verl_core_algos():
    bare_packages("verl", "verl.utils", "verl.trainer", "verl.trainer.ppo", "verl.workers")
    for name, attributes in {
        "omegaconf": {"DictConfig": dict},
        "tensordict": {"TensorDict": dict},
        "verl.trainer.config": {"AlgoConfig": type("AlgoConfig", (), {})},
        "verl.workers.config": {"ActorConfig": ActorConfig},
        "verl.utils": {"as_torch_index": None, "group_mean_std": None},
    }.items():
        module = sys.modules.setdefault(name, types.ModuleType(name))
        for attribute, value in attributes.items():
            setattr(module, attribute, value)
    return importlib.import_module("verl.trainer.ppo.core_algos")
