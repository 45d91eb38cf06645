"""The command line: one module for each group of commands. Heavy modules are imported inside them: `--help` must answer at once."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from fastgrpo.cli.analyze import analyze
from fastgrpo.cli.config import diff, schema, show
from fastgrpo.cli.data import check as data_check
from fastgrpo.cli.doctor import doctor
from fastgrpo.cli.evaluate import evaluate
from fastgrpo.cli.experiment import experiment
from fastgrpo.cli.export import export
from fastgrpo.cli.init import init
from fastgrpo.cli.plan import plan
from fastgrpo.cli.pretrain import pretrain
from fastgrpo.cli.report import compare, report
from fastgrpo.cli.reward import check as reward_check
from fastgrpo.cli.rollouts import rollouts
from fastgrpo.cli.sample import sample
from fastgrpo.cli.train import train
from fastgrpo.errors import FastgrpoError
from fastgrpo.ranks import leave

app = typer.Typer(
    name="fastgrpo",
    help="R1-Zero-like reinforcement learning of language models with Dr. GRPO.",
    no_args_is_help=True,
)


@app.callback()
def launched(local_rank: Annotated[int | None, typer.Option("--local_rank", "--local-rank", hidden=True)] = None) -> None:
    """Accepts what the launcher of DeepSpeed gives before the command, and says in LOCAL_RANK too."""


app.command()(train)
app.command()(pretrain)
app.command("eval")(evaluate)
app.command()(analyze)
app.command()(plan)
app.command()(experiment)
app.command()(rollouts)
app.command()(sample)
app.command()(export)
app.command()(doctor)
app.command()(init)
app.command()(report)
app.command()(compare)
for name, about, commands in (
    ("config", "Look at settings.", {"show": show, "diff": diff, "schema": schema}),
    ("data", "Look at problem sets.", {"check": data_check}),
    ("reward", "Look at graders.", {"check": reward_check}),
):
    group = typer.Typer(help=about, no_args_is_help=True)
    for command, function in commands.items():
        group.command(command)(function)
    app.add_typer(group, name=name)

INTERRUPTED = 130  # what typer exits with on Ctrl-C


def main() -> None:
    """Runs the command; an expected failure is shown as its message alone and ends with its exit code."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # OpenMP threads that wait longer stall a machine that has other work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and those of vLLM beside ours
    code: int | str | None = 0
    try:
        app(prog_name="fastgrpo")  # completion asks for it under this name
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
