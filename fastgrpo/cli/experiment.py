"""`fastgrpo experiment`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer


def experiment(
    name: Annotated[str, typer.Argument(help="Such as bias; a name that does not exist lists all.")],
    scale: Annotated[Literal["toy", "paper"], typer.Option(help="toy runs on two cores; paper writes files and commands only.")] = "toy",
    quick: Annotated[bool, typer.Option("--quick", help="One seed and few steps: shows that it works, and proves nothing.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each arm, instead of the experiment's own numbers.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Directory of runs, results, figures; the same one goes on where it stopped.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Repeat a figure or table of the paper, and say in words whether its claims hold there."""
    from fastgrpo.errors import InputError
    from fastgrpo.experiments.definition import load_experiment

    found = load_experiment(name)

    def say(text: str) -> None:  # in one piece: runs at the same time say theirs too
        (sys.stderr if as_json else sys.stdout).write(f"{text}\n")

    out = out or Path("experiments") / f"{name}{'-paper' if scale == 'paper' else '-quick' if quick else ''}"
    if scale == "paper":
        if quick:
            raise InputError("--quick is of --scale toy: at the paper's scale nothing is run here")
        from fastgrpo.experiments.scale_paper import collect_paper, write_paper

        written = write_paper(found, out, seeds)
        hours = f", {written.hours:.0f} hours of training as `fastgrpo plan` predicts" if written.hours else ""
        say("\n".join([*written.needs, f"{len(written.commands)} runs{hours}", ""]))
        say(f"run them with: sh {out / 'commands.sh'}; then this command again shows their results")
        results = collect_paper(name, found, written.runs, out)
        if results:
            require_figures()
            show(results, out, say)
        if as_json:
            print(json.dumps({"out": str(out), "runs": len(written.commands), "hours": written.hours, "results": results or None}))
        return
    require_figures()
    from fastgrpo.experiments.scale_toy import run_toy
    from fastgrpo.model_source import cache_directory

    results = run_toy(name, found, out, quick, seeds, jobs, cache_directory(), say)
    show(results, out, say)
    if as_json:
        print(json.dumps(results))


def require_figures() -> None:
    """Raises SetupError before any long work."""
    from fastgrpo.errors import SetupError

    missing = [package for package in ("matplotlib", "plotly") if find_spec(package) is None]
    if missing:
        raise SetupError(f'figures need {" and ".join(missing)}: pip install "fastgrpo[experiments]"')


def show(results: dict, out: Path, say: Callable[[str], None]) -> None:
    """Draws figure and page, and says the table and the verdicts."""
    from fastgrpo.experiments.figure import draw
    from fastgrpo.experiments.table import table
    from fastgrpo.report.page import write_experiment

    draw(results, out / "figure.png")
    write_experiment(results, out / "index.html")
    for row in table(results):
        say("  ".join(row))
    say("\n".join(verdict["sentence"] for verdict in results["verdicts"]))
    say(f"results.json, figure.png, index.html: {out}")
