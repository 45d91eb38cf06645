"""The command line. Heavy modules are imported inside the commands: `--help` must answer at once."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from fastgrpo.errors import FastgrpoError

app = typer.Typer(
    name="fastgrpo",
    help="R1-Zero-like reinforcement learning of language models with Dr. GRPO.",
    no_args_is_help=True,
    add_completion=False,
)
config_app = typer.Typer(help="Look at settings.", no_args_is_help=True)
app.add_typer(config_app, name="config")

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        help="A recipe name or YAML file first, then settings such as steps=10 loss.type=grpo.", metavar="[RECIPE|FILE] [KEY=VALUE]..."
    ),
]
INTERRUPTED = 130  # what typer exits with on Ctrl-C


@app.command()
def train(settings: Settings = None) -> None:
    """Train a model. Without arguments: the recipe `tiny`, on CPU, in minutes."""
    resolved = _resolve(settings)
    from rich.console import Console

    from fastgrpo.display import closing_table, make_display
    from fastgrpo.launch import launch

    summary, directory = launch(resolved, make_display())
    Console().print(closing_table(summary))
    print(f"run directory: {directory}")


@config_app.command()
def show(settings: Settings = None) -> None:
    """Print every setting with its origin, as YAML that `fastgrpo train FILE` accepts."""
    from fastgrpo.config import to_yaml

    print(to_yaml(_resolve(settings)), end="")


def _resolve(settings: list[str] | None):
    from fastgrpo.config import load_config

    settings = settings or []
    named = bool(settings) and "=" not in settings[0]
    return load_config(settings[0] if named else None, settings[1:] if named else settings)


def main() -> None:
    """Runs the command; an expected failure is shown as its message alone and ends with its exit code."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # OpenMP threads that wait longer stall a machine that has other work
    try:
        app()
    except FastgrpoError as error:
        print("\n".join(f"fastgrpo: {line}" for line in str(error).splitlines()), file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("fastgrpo: interrupted; what the run had written is in its directory", file=sys.stderr)
        raise
