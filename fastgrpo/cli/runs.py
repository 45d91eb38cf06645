"""What the commands that make a run share: their arguments, ranks started on request, and the run carried out as one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgrpo.errors import InputError

if TYPE_CHECKING:
    from fastgrpo.config import ResolvedConfig
    from fastgrpo.display import Look
    from fastgrpo.nodes import Nodes


def complete_recipe(incomplete: str) -> list[str]:
    """For the shell: the recipes, and the YAML files here."""
    from fastgrpo.settings_file import PRETRAINING, TRAINING

    names = [*TRAINING.names(), *PRETRAINING.names(), *(path.name for path in sorted(Path().glob("*.yaml")))]
    return [name for name in names if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """For the shell: recipes, files, and the keys of settings."""
    from fastgrpo.config import Config, fields_of

    return [*complete_recipe(incomplete), *(f"{key}=" for key in fields_of(Config) if key.startswith(incomplete))]


Settings = Annotated[
    list[str] | None,
    typer.Argument(
        help="A recipe name or YAML file first, then settings such as seed=1 lr=1e-6.",
        metavar="[RECIPE|FILE] [KEY=VALUE]...",
        autocompletion=complete_settings,
    ),
]
Gpus = Annotated[int, typer.Option(min=1, help="Ranks to start on this machine: one for each GPU, or processes on a CPU.")]
NodeCount = Annotated[int, typer.Option(min=1, help="Machines of the run: the same command on each, with its own --node.")]
NodeNumber = Annotated[int | None, typer.Option(min=0, help="Which of them this machine is, from 0.")]
Meet = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where they meet: an address of node 0 and a free port.")]
Patience = Annotated[float, typer.Option(min=1, help="Seconds to wait for the other machines: to come, or for a sign of life.")]
ResumeFrom = Annotated[
    str, typer.Option(metavar="auto|never|PATH", help="Go on with the run in run_dir if there is one, or with a run or checkpoint.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON; all else goes to stderr.")]
AllowChanges = Annotated[
    bool, typer.Option("--allow-changes", help="Resume although settings or data changed that decide what is computed.")
]


def start_ranks(arguments: list[str], gpus: int, nodes: Nodes, check: Callable[[int], None]) -> None:
    """Where several ranks are asked for: starts them with these `arguments`, sees them end, and exits as they did.

    `check` takes how many there will be, and raises what each of them would, once and at once; with other nodes it is left to the ranks,
    because these tell the others, who would wait for this node.
    """
    if gpus == nodes.count == 1:
        return
    from fastgrpo.ranks import require_no_launcher
    from fastgrpo.spawn import run_ranks

    require_no_launcher()
    if nodes.count == 1:
        check(gpus)
    raise typer.Exit(run_ranks(gpus, arguments, nodes))


def rank_arguments(command: str, settings: list[str] | None, resume: str, allow_changes: bool, as_json: bool) -> list[str]:
    """The arguments of each rank: those of this process, without what starts ranks."""
    return [command, *["--json"] * as_json, *(settings or []), "--resume", resume, *["--allow-changes"] * allow_changes]


def carry_out(
    launch: Callable[..., tuple[dict, Path]],
    resolved: ResolvedConfig,
    resume: str,
    allow_changes: bool,
    look: Look,
    closing: Callable[[dict], object],
    as_json: bool = False,
) -> None:
    """Makes the run as this rank; the first one shows it, and what came of it."""
    from rich.console import Console

    from fastgrpo.display import NoDisplay, make_display

    first = os.environ.get("RANK", "0") == "0"
    observer = make_display(look, Console(stderr=as_json)) if first else NoDisplay()
    summary, directory = launch(resolved, observer, resume, allow_changes)
    if first and as_json:
        print(json.dumps(summary | {"run_dir": str(directory)}))
    elif first:
        Console().print(closing(summary))
        print(f"run directory: {directory}")


def with_settings_of(resume: str, settings: list[str] | None) -> list[str]:
    """A path to resume brings its own settings along, unless a recipe or file is named."""
    settings = settings or []
    if resume in ("auto", "never") or (settings and "=" not in settings[0]):
        return settings
    path = Path(resume)
    own = next((file for file in (path / "trainer" / "config.yaml", path / "config.yaml") if file.is_file()), None)
    if own is None:
        raise InputError(f"--resume {resume}: no run is there. It can be auto, never, a run's directory, or one of its checkpoints")
    return [str(own), *settings]


def resolve(settings: list[str] | None, kind: type | None = None) -> ResolvedConfig:
    """The settings as given on a command line, as a Config or another `kind`."""
    from fastgrpo.config import Config, load_config

    settings = settings or []
    named = bool(settings) and "=" not in settings[0]
    return load_config(settings[0] if named else None, settings[1:] if named else settings, kind or Config)
