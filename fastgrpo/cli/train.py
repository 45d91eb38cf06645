"""`fastgrpo train` and `fastgrpo config show`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fastgrpo.errors import InputError

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        help="A recipe name or YAML file first, then settings such as steps=10 loss.type=grpo.", metavar="[RECIPE|FILE] [KEY=VALUE]..."
    ),
]


def train(
    settings: Settings = None,
    gpus: Annotated[int, typer.Option(min=1, help="Ranks to start on this machine: one for each GPU, or processes on a CPU.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines of the run: the same command on each, with its own --node.")] = 1,
    node: Annotated[int | None, typer.Option(min=0, help="Which of them this machine is, from 0.")] = None,
    meet: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where they meet: an address of node 0 and a free port.")] = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds to wait for the other machines: to come, or for a sign of life.")] = 120.0,
    resume: Annotated[
        str, typer.Option(metavar="auto|never|PATH", help="Go on with the run in run_dir if there is one, or with a run or checkpoint.")
    ] = "never",
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume although settings or data changed that decide what is computed.")
    ] = False,
) -> None:
    """Train a model. Without arguments: the recipe `tiny`, on CPU, in minutes. It also runs under torchrun."""
    resolved = _resolve(_with_settings_of(resume, settings or []))
    if gpus > 1 or nodes > 1 or node is not None or meet:
        from fastgrpo.nodes import Nodes
        from fastgrpo.ranks import require_no_launcher
        from fastgrpo.spawn import run_ranks

        require_no_launcher()
        arguments = ["train", *(settings or []), "--resume", resume, *(["--allow-changes"] * allow_changes)]
        raise typer.Exit(run_ranks(gpus, arguments, Nodes(nodes, node, meet, patience)))
    from rich.console import Console

    from fastgrpo.display import NoDisplay, closing_table, make_display
    from fastgrpo.launch import launch

    first = os.environ.get("RANK", "0") == "0"
    summary, directory = launch(resolved, make_display() if first else NoDisplay(), resume, allow_changes)
    if first:
        Console().print(closing_table(summary))
        print(f"run directory: {directory}")
    from fastgrpo.ranks import leave_ranks

    leave_ranks()


def show(settings: Settings = None) -> None:
    """Print every setting with its origin, as YAML that `fastgrpo train FILE` accepts."""
    from fastgrpo.config import to_yaml

    print(to_yaml(_resolve(settings)), end="")


def _with_settings_of(resume: str, settings: list[str]) -> list[str]:
    """A path to resume brings its own settings along, unless a recipe or file is named."""
    if resume in ("auto", "never") or (settings and "=" not in settings[0]):
        return settings
    path = Path(resume)
    own = next((file for file in (path / "trainer" / "config.yaml", path / "config.yaml") if file.is_file()), None)
    if own is None:
        raise InputError(f"--resume {resume}: no run is there. It can be auto, never, a run's directory, or one of its checkpoints")
    return [str(own), *settings]


def _resolve(settings: list[str] | None):
    from fastgrpo.config import load_config

    settings = settings or []
    named = bool(settings) and "=" not in settings[0]
    return load_config(settings[0] if named else None, settings[1:] if named else settings)
