"""`fastgrpo data check`."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def check(
    sources: Annotated[list[str], typer.Argument(help="Problem sets: names, files, directories, or ORG/NAME@SPLIT.")],
    eval: Annotated[
        list[str] | None, typer.Option("--eval", help="Held-out set that the others must not overlap; may be repeated.")
    ] = None,
    problem: Annotated[str, typer.Option(help="Column of the question.")] = "problem",
    answer: Annotated[str, typer.Option(help="Column of the gold answer.")] = "answer",
    tokenizer: Annotated[str, typer.Option(help="Model whose tokens measure prompts; without it characters do.")] = "",
    template: Annotated[str, typer.Option(help="Prompt around the question, where tokens are counted.")] = "no",
    max_prompt_tokens: Annotated[int, typer.Option(min=1, help="Longer prompts are reported.")] = 1024,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where anything is found.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look through problem sets: unusable rows, duplicates, contradictions, long prompts, overlap of training and held-out sets."""
    from fastgrpo.data_check import check_data

    report = check_data(sources, eval or [], problem, answer, tokenizer, template, max_prompt_tokens)
    print(json.dumps(report.as_json()) if as_json else "\n".join(report.lines()))
    if strict and report.problems_found:
        raise typer.Exit(1)
