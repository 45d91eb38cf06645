"""`fastgrpo plan`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

SHAPE = "Of a model that is not known here."


def plan(
    settings: Annotated[
        list[str] | None, typer.Argument(help="A recipe name or YAML file first, then settings.", metavar="[RECIPE|FILE] [KEY=VALUE]...")
    ] = None,
    gpu: Annotated[str, typer.Option(help="a100-80g, h100 or h200.")] = "a100-80g",
    gpus: Annotated[int, typer.Option(help="How many.")] = 8,
    assume: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of an assumption that the plan prints; may be repeated.")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help=f"Hidden width. {SHAPE}")] = None,
    intermediate: Annotated[int | None, typer.Option(min=1, help=f"Width of the MLP. {SHAPE}")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help=f"Layers. {SHAPE}")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help=f"Query heads. {SHAPE}")] = None,
    kv_heads: Annotated[int | None, typer.Option(min=1, help=f"Key and value heads; as many as --heads by default. {SHAPE}")] = None,
    vocabulary: Annotated[int | None, typer.Option(min=1, help=f"Size of the vocabulary. {SHAPE}")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where it does not fit.")] = False,
) -> None:
    """Say what a run will need: amounts of a step, memory of each GPU, hours; and where it does not fit, what to change.

    Needs no GPU and no network.
    """
    from fastgrpo.config import load_config
    from fastgrpo.plan import make_plan, report

    settings = settings or []
    named = bool(settings) and "=" not in settings[0]
    resolved = load_config(settings[0] if named else None, settings[1:] if named else settings)
    shape = {"hidden": hidden, "intermediate": intermediate, "layers": layers}
    shape |= {"heads": heads, "kv_heads": kv_heads, "vocabulary": vocabulary}
    made = make_plan(resolved, gpu, gpus, {name: size for name, size in shape.items() if size is not None}, assume or [])
    print(json.dumps(report.as_json(made)) if as_json else "\n".join(report.lines(made)))
    if strict and made.fix:
        raise typer.Exit(1)
