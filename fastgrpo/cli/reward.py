"""`fastgrpo reward check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def check(
    file: Annotated[Path, typer.Argument(help='JSONL rows {"response", "gold", "reward", "template_fn"?, "verifier"?}, or a problem set.')],
    verifier: Annotated[str, typer.Option(help="fast or math_verify, for rows that do not say.")] = "fast",
    form: Annotated[str, typer.Option(help="boxed, answer_tag or orz_tag, for rows that do not say.")] = "boxed",
    compat: Annotated[bool, typer.Option("--compat", help="Repeat the paper's grader where it is plainly wrong, too.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where any row disagrees.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and disagreements as JSON.")] = False,
    answer: Annotated[str, typer.Option(help="Column of the gold answer in a problem set.")] = "answer",
) -> None:
    """Grade labelled responses and list where the label and the grader disagree. Rows without labels: each gold against itself."""
    from fastgrpo.reward_check import check_rewards

    report = check_rewards(file, verifier, form, compat, answer)
    print(json.dumps(report.as_json()) if as_json else "\n".join(report.lines()))
    if strict and report.agree < report.rows:
        raise typer.Exit(1)
