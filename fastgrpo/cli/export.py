"""`fastgrpo export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN[@best|@latest|@STEP]", help="A run; its best checkpoint if it keeps one, else the latest.")
    ],
    out: Annotated[Path, typer.Argument(help="A new directory.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16; by default as it was saved.")] = "",
    push: Annotated[str, typer.Option(metavar="ORG/NAME", help="Upload it to the Hub, too, with the token in HF_TOKEN.")] = "",
    public: Annotated[bool, typer.Option("--public", help="With --push: for everyone to see; else a new repository is private.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Make a model of a run's checkpoint: weights, tokenizer, and a model card with settings and results."""
    from fastgrpo import export as program
    from fastgrpo.errors import InputError
    from fastgrpo.model_source import HUB_ID

    if push and not HUB_ID.fullmatch(push):
        raise InputError(f"--push {push!r} is no name on the Hub, which is of the form ORG/NAME")
    if public and not push:
        raise InputError("--public goes with --push ORG/NAME")
    if push:
        program.require_token()
    exported = program.export(run, out, dtype)
    print(f"step {exported.step} of {exported.run}, in {exported.dtype}: {out}", file=sys.stderr if as_json else sys.stdout)
    address = program.push(out, push, public) if push else None
    if as_json:
        print(
            json.dumps(
                {"out": str(out), "checkpoint": str(exported.checkpoint), "step": exported.step, "dtype": exported.dtype, "hub": address}
            )
        )
    elif address:
        print(f"uploaded to {address}")
