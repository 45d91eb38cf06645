"""The command line: one module for each group of commands. What surprises: only the command that is asked for is imported and described,
and it imports heavy modules inside its function: it must answer at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated

import typer

from fastgrpo.errors import FastgrpoError
from fastgrpo.ranks import leave

COMMANDS = {  # by name: the module in this package, and its function
    "train": "train.train",
    "pretrain": "pretrain.pretrain",
    "eval": "evaluate.evaluate",
    "analyze": "analyze.analyze",
    "plan": "plan.plan",
    "experiment": "experiment.experiment",
    "rollouts": "rollouts.rollouts",
    "sample": "sample.sample",
    "export": "export.export",
    "doctor": "doctor.doctor",
    "init": "init.init",
    "report": "report.report",
    "compare": "report.compare",
}
GROUPS = {
    "config": ("Look at settings.", {"show": "config.show", "diff": "config.diff", "schema": "config.schema"}),
    "data": ("Look at problem sets.", {"check": "data.check"}),
    "reward": ("Look at graders.", {"check": "reward.check"}),
}
COMPLETION = "_FASTGRPO_COMPLETE"  # in the environment, where a shell asks


def launched(local_rank: Annotated[int | None, typer.Option("--local_rank", "--local-rank", hidden=True)] = None) -> None:
    """Accepts what the launcher of DeepSpeed gives before the command, and says in LOCAL_RANK too."""


def make_app(only: str | None = None) -> typer.Typer:
    """The program; or one command of it, since describing them all takes longer than many of them."""
    about = "R1-Zero-like reinforcement learning of language models with Dr. GRPO."
    app = typer.Typer(name="fastgrpo", help=about, no_args_is_help=True)
    app.callback()(launched)
    for name, place in COMMANDS.items():
        if only in (None, name):
            app.command(name)(function(place))
    for name, (about, places) in GROUPS.items():
        if only in (None, name):
            group = typer.Typer(help=about, no_args_is_help=True)
            for command, place in places.items():
                group.command(command)(function(place))
            app.add_typer(group, name=name)
    return app


def function(place: str) -> Callable:
    module, _, name = place.partition(".")
    return getattr(import_module(f"fastgrpo.cli.{module}"), name)


def asked_for(words: Sequence[str]) -> str | None:
    """The one command that these arguments name; None where all are wanted: for help, completion, or a name that does not exist."""
    named = next((word for word in words if not word.startswith("-")), None)
    return named if named in (*COMMANDS, *GROUPS) and COMPLETION not in os.environ else None


INTERRUPTED = 130  # what typer exits with on Ctrl-C


def main() -> None:
    """Runs the command; an expected failure is shown as its message alone and ends with its exit code."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # OpenMP threads that wait longer stall a machine that has other work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and those of vLLM beside ours
    code: int | str | None = 0
    try:
        make_app(asked_for(sys.argv[1:]))(prog_name="fastgrpo")  # completion asks for it under this name
    except FastgrpoError as error:
        print("\n".join(f"fastgrpo: {line}" for line in str(error).splitlines()), file=sys.stderr)
        code = error.exit_code
    except SystemExit as end:
        code = end.code
        if code == INTERRUPTED:
            print("fastgrpo: interrupted; what had been written is kept", file=sys.stderr)
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    leave(code)
