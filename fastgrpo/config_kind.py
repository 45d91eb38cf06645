"""Whose settings a source holds: those of training or of pretraining."""

from __future__ import annotations

from pathlib import Path

import yaml

from fastgrpo.config import Config, ResolvedConfig, load_config
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.settings_file import PRETRAINING, read_yaml

OWN = PretrainConfig.model_fields.keys() - Config.model_fields.keys()


def kind_of(source: str | None) -> type[Config] | type[PretrainConfig]:
    """By its name for a recipe, by what it extends or by its keys for a file. What cannot be read counts as training, and is told later."""
    if source in PRETRAINING.names():
        return PretrainConfig
    try:
        content = read_yaml(Path(source).read_text()) if source else {}
    except (OSError, ValueError, yaml.YAMLError):
        return Config
    keys = content if isinstance(content, dict) else {}
    return PretrainConfig if keys.get("recipe") in PRETRAINING.names() or OWN & keys.keys() else Config


def load_any(source: str) -> ResolvedConfig:
    """A recipe, a file, or the directory of a run, whose settings keep the origins that its config.yaml tells. Raises InputError."""
    file = Path(source) / "config.yaml"
    if not file.is_file():
        return load_config(source, [], kind_of(source))
    found, written = load_config(str(file), [], kind_of(str(file))), file.read_text().splitlines()
    origins = {key: _told(origin, written) for key, origin in found.origins.items()}
    return ResolvedConfig(found.config, origins, source)


def _told(origin: str, written: list[str]) -> str:
    line = origin.rpartition(":")[2]
    return written[int(line) - 1].rpartition("  # ")[2] if line.isdecimal() else origin
