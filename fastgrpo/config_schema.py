"""The settings as a JSON schema, by which editors complete and check a YAML file as it is written."""

from __future__ import annotations

from fastgrpo.config import Config
from fastgrpo.config_pretrain import PretrainConfig


def settings_schema(kind: type[Config] | type[PretrainConfig]) -> dict:
    """A file may extend a recipe, which then brings what the file leaves out: so nothing is required, and `recipe` is one more key."""
    schema = kind.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)
    recipe = {"enum": kind.recipes.names(), "description": "a recipe that this file extends", "type": "string"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "properties": {"recipe": recipe, **schema["properties"]},
    }
