"""`fastgrpo analyze`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def analyze(
    what: Annotated[str, typer.Argument(help="answering, exploration, reflection or all.")],
    model: Annotated[str, typer.Option(help="A model directory or hub id, a run directory, or the URL of an OpenAI-compatible server.")],
    data: Annotated[str, typer.Option(help="The questions: a name, a file, or ORG/NAME@SPLIT.")] = "math12k",
    templates: Annotated[str, typer.Option(help="Of answering, comma-separated.")] = "no,r1,qwen_math",
    template: Annotated[str, typer.Option(help="Of exploration and reflection; by default the one that answering chose.")] = "",
    temperatures: Annotated[str, typer.Option(help="Comma-separated.")] = "0.2,0.6,1",
    n: Annotated[int, typer.Option("-n", "--samples", min=1, help="Responses to each question.")] = 8,
    questions: Annotated[int, typer.Option(min=1, help="So many, drawn from the data.")] = 500,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Budget of a response, in tokens.")] = 3000,
    verifier: Annotated[str, typer.Option(help="math_verify or fast.")] = "fast",
    judge: Annotated[str, typer.Option(help="rules, or the URL of an OpenAI-compatible server; its key in JUDGE_API_KEY.")] = "rules",
    judge_model: Annotated[str, typer.Option(help="The judging server's name of the model; its first by default.")] = "",
    judge_concurrency: Annotated[int, typer.Option(min=1, help="Requests to the judge at once.")] = 16,
    judge_timeout: Annotated[float, typer.Option(min=0.1, help="Of one request to the judge, in seconds.")] = 60.0,
    judge_retries: Annotated[int, typer.Option(min=0, help="Of a request that fails.")] = 6,
    judge_prices: Annotated[str, typer.Option(help="PROMPT,COMPLETION: prices of a million tokens, for the cost.")] = "",
    step: Annotated[str, typer.Option(help="Checkpoint of a run: best, latest or a number.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of questions, and of sampling.")] = 0,
    problem: Annotated[str, typer.Option(help="Column of the question in files and hub sets.")] = "problem",
    answer: Annotated[str, typer.Option(help="Column of the gold answer.")] = "answer",
    level: Annotated[str, typer.Option(help="Column of the difficulty, if there is one.")] = "level",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, of a model that is loaded here.")] = "bfloat16",
    engine: Annotated[str, typer.Option(help="What samples from a model that is loaded here: native or vllm.")] = "native",
    cache_gib: Annotated[float, typer.Option(min=0.01, help="KV cache of vllm, in GiB.")] = 1.0,
    served_model: Annotated[str, typer.Option(help="The server's name of the model; its first by default.")] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Send prompts to a server as chat messages.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to a server at once.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Directory of responses and summary; the same one goes on where it stopped.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Look at a base model before training: which template makes it answer, what it can find, whether it reflects.

    Run again, it goes on where it stopped: no response is drawn twice, and no judge asked twice.
    """
    arguments = locals()
    from rich.console import Console

    from fastgrpo.analyze.tables import tables
    from fastgrpo.launch_analysis import AnalysisRequest, launch_analysis

    request = AnalysisRequest(**{name: arguments[name] for name in AnalysisRequest.__dataclass_fields__})
    console = Console(stderr=as_json)
    summary, analyses, directory = launch_analysis(request, lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True))
    if as_json:
        print(json.dumps(summary))
    else:
        for table in tables(summary, analyses):
            console.print(table)
        print(f"responses and summary: {directory}")
