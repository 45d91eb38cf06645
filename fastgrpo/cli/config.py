"""`fastgrpo config show`, `diff` and `schema`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from fastgrpo.cli.runs import Settings, resolve

Source = "A recipe, a YAML file, or the directory of a run."


def show(
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print values and origins by key as JSON.")] = False,
) -> None:
    """Print every setting with its origin, as YAML that `fastgrpo train FILE` accepts; of `fastgrpo pretrain` too."""
    from fastgrpo.config import to_yaml

    kind = None
    if settings and "=" not in settings[0]:
        from fastgrpo.config_kind import kind_of

        kind = kind_of(settings[0])
    resolved = resolve(settings, kind)
    if as_json:
        print(json.dumps({key: {"value": value, "origin": resolved.origins[key]} for key, value in resolved.values().items()}))
    else:
        print(to_yaml(resolved), end="")


def diff(
    left: Annotated[str, typer.Argument(help=Source)],
    right: Annotated[str, typer.Argument(help=Source)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """Print the settings that differ between two recipes, files or runs, each value with its origin."""
    from fastgrpo.config_difference import differences
    from fastgrpo.config_kind import load_any
    from fastgrpo.settings_file import yaml_line

    found = differences(load_any(left), load_any(right))
    if as_json:
        print(json.dumps([asdict(each) for each in found]))
        return
    for each in found:
        print(each.key)
        for source, value, origin in ((left, each.left, each.left_origin), (right, each.right, each.right_origin)):
            print(f"  {source}: {yaml_line(each.key, value).partition(': ')[2]}  # {origin}")
    print({0: "no setting differs", 1: "1 setting differs"}.get(len(found), f"{len(found)} settings differ"))


def schema(
    pretrain: Annotated[bool, typer.Option("--pretrain", help="Of `fastgrpo pretrain` instead of `fastgrpo train`.")] = False,
) -> None:
    """Print the JSON schema of a settings file, for editors that complete and check YAML."""
    from fastgrpo.config import Config
    from fastgrpo.config_pretrain import PretrainConfig
    from fastgrpo.config_schema import settings_schema

    print(json.dumps(settings_schema(PretrainConfig if pretrain else Config), indent=1))
