"""`fastgrpo sample`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fastgrpo.launch_sampling import Sitting

RAW = {"highlight": False, "markup": False, "soft_wrap": True}


def sample(
    model: Annotated[str, typer.Argument(help="A run directory, a model directory or hub id, or the URL of an OpenAI-compatible server.")],
    prompt: Annotated[str | None, typer.Option(help="The problem. Without it, problems are typed, or one is read from a pipe.")] = None,
    answer: Annotated[str, typer.Option(help="Its gold answer: each response is graded.")] = "",
    template: Annotated[str, typer.Option(help="Prompt around the problem. A run's own by default; else it must be given.")] = "",
    n: Annotated[int, typer.Option("-n", "--samples", min=1, help="Responses to each problem, one after the other.")] = 1,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy. A run's own by default, else 1.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Budget of a response. A run's own by default, else 3000.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same one gives the same responses.")] = 0,
    step: Annotated[str, typer.Option(help="Checkpoint of a run: best, latest or a number.")] = "",
    verifier: Annotated[str, typer.Option(help="math_verify or fast.")] = "math_verify",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16. A run's own by default, else bfloat16.")] = "",
    served_model: Annotated[str, typer.Option(help="The server's name of the model; its first by default.")] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Send prompts to a server as chat messages.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line for each response instead.")] = False,
) -> None:
    """Ask a model: shows the prompt as the template makes it, then the response as it is drawn. The responses alone go to stdout."""
    from rich.console import Console

    from fastgrpo.errors import InputError
    from fastgrpo.launch_sampling import SampleRequest, Sitting

    arguments = {name: value for name, value in locals().items() if name in SampleRequest.__dataclass_fields__}
    if answer and prompt is None and sys.stdin.isatty():
        raise InputError("--answer is of one problem: give that as --prompt, or through a pipe")
    if prompt is not None and not prompt.strip():
        raise InputError("--prompt is empty: it is the problem to be solved")
    messages = Console(stderr=True)
    sitting = Sitting(SampleRequest(**arguments), lambda text: messages.print(text, **RAW))
    request = sitting.request
    way = "greedy" if request.temperature == 0 else f"temperature {request.temperature:g}"
    messages.print(f"{sitting.model}, template {request.template}, {way}, at most {request.max_new_tokens} tokens", **RAW)
    for problem in problems(prompt, messages):
        messages.print(sitting.template.render(problem), style="dim", **RAW)
        for number in range(n):
            ask(sitting, problem, number, answer, as_json, messages)


def problems(prompt: str | None, messages: Console) -> Iterator[str]:
    """The one that was given or piped in, or one after the other as they are typed."""
    from fastgrpo.errors import InputError

    if prompt is not None:
        yield prompt
    elif not sys.stdin.isatty():
        text = sys.stdin.read().strip()
        if not text:
            raise InputError("nothing came through the pipe: give a problem, or --prompt TEXT")
        yield text
    else:
        messages.print("a problem on each line; Ctrl-C ends a response, Ctrl-D all", **RAW)
        while (text := typed()) is not None:
            if text:
                yield text


def typed() -> str | None:
    """A line; None at the end."""
    try:
        return input("problem> ").strip()
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return None


def ask(sitting: Sitting, problem: str, number: int, answer: str, as_json: bool, messages: Console) -> None:
    """Draws and shows one response. At a terminal Ctrl-C ends it alone."""
    try:
        response = sitting.draw(problem, number, (lambda text: None) if as_json else show)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        print("\n(ended)", file=sys.stderr)
        return
    graded = sitting.verdict(response, answer) if answer else None
    if as_json:
        row = {"problem": problem, "prompt": sitting.template.render(problem), "sample": number, "response": response.text}
        row |= {"length": response.length, "finish_reason": response.finish_reason}
        print(json.dumps(row | (graded or {})), flush=True)
        return
    print(flush=True)
    messages.print(closing(response, graded, answer), style="dim" if graded is None else "green" if graded["right"] else "red", **RAW)


def show(text: str) -> None:
    """A pipe gets exactly the response."""
    from fastgrpo.display import harmless

    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def closing(response, graded: dict | None, answer: str) -> str:
    """One line on the response: its length, how it ended, and how it was graded."""
    ended = "cut off" if response.truncated else "ended by itself"
    line = f"{response.length} tokens, {ended}"
    if graded is None:
        return line
    why = (
        ""
        if graded["right"]
        else ", since it was cut off"
        if response.truncated
        else ""
        if graded["formatted"]
        else ": no answer in its form"
    )
    return f"{line}; {'right' if graded['right'] else 'wrong'}{why} (gold {answer}, graded {graded['grading']})"
