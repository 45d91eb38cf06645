"""`fastgrpo eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

FIVE = "aime24,amc,math500,minerva,olympiad_bench"


def evaluate(
    model: Annotated[str, typer.Argument(help="A model directory or hub id, a run directory, or the URL of an OpenAI-compatible server.")],
    benchmarks: Annotated[str, typer.Option(help="Problem sets, comma-separated: names, files, or ORG/NAME@SPLIT.")] = FIVE,
    template: Annotated[str, typer.Option(help="Prompt around the question. A run's own by default; else it must be given.")] = "",
    n: Annotated[int, typer.Option("-n", "--samples", min=1, help="Responses to each problem; above 1 gives pass@k.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Budget of a response, in tokens.")] = 3000,
    verifier: Annotated[str, typer.Option(help="math_verify or fast.")] = "math_verify",
    keep_truncated: Annotated[
        bool, typer.Option("--keep-truncated", help="Grade truncated responses too, as the paper's stand-alone evaluation does.")
    ] = False,
    compat: Annotated[bool, typer.Option("--compat", help="Repeat the paper's grader where it is plainly wrong, too.")] = False,
    step: Annotated[str, typer.Option(help="Checkpoint of a run: best, latest or a number.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many problems of each set; 0 is all.")] = 0,
    problem: Annotated[str, typer.Option(help="Column of the question in files and hub sets.")] = "problem",
    answer: Annotated[str, typer.Option(help="Column of the gold answer.")] = "answer",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, of a model that is loaded here.")] = "bfloat16",
    engine: Annotated[str, typer.Option(help="What samples from a model that is loaded here: native or vllm.")] = "native",
    cache_gib: Annotated[float, typer.Option(min=0.01, help="KV cache of vllm, in GiB.")] = 1.0,
    served_model: Annotated[str, typer.Option(help="The server's name of the model; its first by default.")] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Send prompts to a server as chat messages.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to a server at once.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Directory of predictions and results; the same one goes on where it stopped.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure accuracy on problem sets, with confidence intervals, beside the published numbers. Run again, it goes on where it stopped."""
    from rich.console import Console

    from fastgrpo.display import outcome_table
    from fastgrpo.launch_evaluation import EvaluationRequest, launch_evaluation

    request = EvaluationRequest(
        **{name: value for name, value in locals().items() if name in EvaluationRequest.__dataclass_fields__ and name != "benchmarks"},
        benchmarks=tuple(name.strip() for name in benchmarks.split(",") if name.strip()),
    )
    console = Console(stderr=as_json)
    outcome, directory = launch_evaluation(request, lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True))
    if as_json:
        print(json.dumps(outcome.as_json()))
    else:
        console.print(outcome_table(outcome))
        print(f"predictions and results: {directory}")
