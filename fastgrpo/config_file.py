"""A config as a file to edit: every setting with what it means and allows, grouped. It loads back as the same config."""

from __future__ import annotations

import textwrap

from pydantic.fields import FieldInfo

from fastgrpo.config import ResolvedConfig, fields_of
from fastgrpo.config_errors import allowed
from fastgrpo.settings_file import yaml_line

WIDTH = 110


def commented_yaml(resolved: ResolvedConfig, source: str, file: str) -> str:
    """The text of `file`, with the values of `source`: the settings that decide the experiment, those with a default, the sections."""
    command = "pretrain" if resolved.config.recipes.folder.endswith("pretrain") else "train"
    lines = [
        f"# Every setting of `fastgrpo {command}`, with the values of {source}. Without its line a setting has its default.",
        f"#   fastgrpo {command} {file}",
        f"#   fastgrpo config diff {source} {file}",
        "",
    ]
    alone = {key: field for key, field in fields_of(type(resolved.config)).items() if "." not in key}
    for heading, required in (("what decides the experiment", True), ("what has a default", False)):
        lines += [f"# ---- {heading} ----", ""]
        for key, field in alone.items():
            if field.is_required() == required:
                lines += [*_comment(field, ""), yaml_line(key, getattr(resolved.config, key)), ""]
    for section, field in type(resolved.config).model_fields.items():
        if section not in alone:
            lines += [f"# ---- {field.annotation.__doc__} ----", "", f"{section}:"]
            for name, inner in field.annotation.model_fields.items():
                value = getattr(getattr(resolved.config, section), name)
                lines += [*_comment(inner, "  "), f"  {yaml_line(name, value)}"]
            lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _comment(field: FieldInfo, indent: str) -> list[str]:
    rule = "" if field.annotation is str else f" ({allowed(field)})"
    return textwrap.wrap(f"{field.description}{rule}", WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ")
