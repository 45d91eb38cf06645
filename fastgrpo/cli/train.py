"""`fastgrpo train` and `fastgrpo config show`."""

from __future__ import annotations

from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        help="A recipe name or YAML file first, then settings such as steps=10 loss.type=grpo.", metavar="[RECIPE|FILE] [KEY=VALUE]..."
    ),
]


def train(settings: Settings = None) -> None:
    """Train a model. Without arguments: the recipe `tiny`, on CPU, in minutes."""
    resolved = _resolve(settings)
    from rich.console import Console

    from fastgrpo.display import closing_table, make_display
    from fastgrpo.launch import launch

    summary, directory = launch(resolved, make_display())
    Console().print(closing_table(summary))
    print(f"run directory: {directory}")


def show(settings: Settings = None) -> None:
    """Print every setting with its origin, as YAML that `fastgrpo train FILE` accepts."""
    from fastgrpo.config import to_yaml

    print(to_yaml(_resolve(settings)), end="")


def _resolve(settings: list[str] | None):
    from fastgrpo.config import load_config

    settings = settings or []
    named = bool(settings) and "=" not in settings[0]
    return load_config(settings[0] if named else None, settings[1:] if named else settings)
