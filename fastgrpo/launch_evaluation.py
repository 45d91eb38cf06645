"""From the arguments of `fastgrpo eval` to its outcome: what is cheap is checked first, then the model is loaded and measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fastgrpo.benchmark import Outcome, Protocol, open_directory, run_benchmark, set_name
from fastgrpo.config import RolloutConfig, load_config
from fastgrpo.data import load_problems, render_prompts
from fastgrpo.engines import make_engine
from fastgrpo.errors import InputError
from fastgrpo.model_source import Subject, find_subject, model_directory, weights_stamp
from fastgrpo.rewards import Grader
from fastgrpo.rollout.endpoint import EndpointSampler
from fastgrpo.templates import TEMPLATES
from fastgrpo.types import Problem, Prompt

if TYPE_CHECKING:
    from fastgrpo.rollout import Sampler

NEVER_DROPPED = 10**9  # tokens: an unanswered problem counts as wrong, so none is left out for its length
CHOICES = {"verifier": ("fast", "math_verify"), "dtype": ("float32", "bfloat16", "float64"), "engine": ("native", "vllm")}


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """The arguments of `fastgrpo eval`, under their names there; `template` "" is the run's own."""

    model: str
    benchmarks: tuple[str, ...]
    template: str
    n: int
    temperature: float
    max_new_tokens: int
    verifier: str
    keep_truncated: bool
    compat: bool
    step: str
    seed: int
    limit: int
    problem: str
    answer: str
    dtype: str
    engine: str
    cache_gib: float
    served_model: str
    chat: bool
    concurrency: int
    out: Path | None


def launch_evaluation(request: EvaluationRequest, say: Callable[[str], None]) -> tuple[Outcome, Path]:
    """Evaluates; returns the outcome and its directory. Raises the errors of fastgrpo.errors."""
    subject = find_subject(request.model, request.step)
    request = replace(request, template=request.template or template_of(subject))
    require_choices(request, {**CHOICES, "template": tuple(TEMPLATES)})
    sets = load_sets(request, say)
    endpoint = find_endpoint(subject, request)
    if endpoint:
        protocol = protocol_of(replace(request, dtype=""), endpoint.model, weights="")
    else:
        protocol = protocol_of(request, subject.path, weights_stamp(subject.path))
    directory = request.out or default_directory(subject, protocol)
    open_directory(directory, protocol)
    template = TEMPLATES[request.template]
    with contextlib.ExitStack() as stack:
        grader = stack.enter_context(Grader(template.answer_form, request.verifier, compat=request.compat))
        asked = {name: (problems, request.template) for name, problems in sets.items()}
        sampler, prompts = open_sampler(endpoint, subject.path, request, asked, stack, say)
        return run_benchmark(protocol, prompts, sampler, grader, template.stop, directory, say), directory


def require_choices(request, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises InputError for an option that is none of its choices."""
    for name, allowed in choices.items():
        if getattr(request, name) not in allowed:
            raise InputError(f"--{name} {getattr(request, name)!r} does not exist; it can be {', '.join(allowed)}")


def find_endpoint(subject: Subject, request) -> EndpointSampler | None:
    """The server that the subject is, asked for its model's name; None for a model that is loaded here."""
    if not subject.url:
        return None
    endpoint = EndpointSampler(subject.url, request.served_model, chat=request.chat, concurrency=request.concurrency)
    endpoint.model = endpoint.model_name()
    return endpoint


def template_of(subject: Subject) -> str:
    """The template a run was trained with. Raises InputError for what is no run: a model does not say how it wants to be asked."""
    if subject.run is None:
        raise InputError(f"--template is needed: {', '.join(TEMPLATES)}. For a base model try `no`, for a run its own is the default")
    return load_config(str(subject.run / "config.yaml"), []).config.template


def load_sets(request: EvaluationRequest, say: Callable[[str], None]) -> dict[str, tuple[Problem, ...]]:
    """The problems of each benchmark, by a short name. Raises InputError where two have one name."""
    sets: dict[str, tuple[Problem, ...]] = {}
    for source in request.benchmarks:
        found = load_problems(source, request.problem, request.answer)
        for line in (*found.warnings, *found.skipped_lines()):
            say(line)
        name = set_name(source)
        if name in sets:
            raise InputError(f"--benchmarks names two sets {name!r}; evaluate them in two commands")
        sets[name] = found.problems[: request.limit] if request.limit else found.problems
    if not sets:
        raise InputError("--benchmarks names no problem set")
    return sets


def protocol_of(request: EvaluationRequest, model: str, weights: str) -> Protocol:
    return Protocol(
        model=model,
        weights=weights,
        template=request.template,
        n=request.n,
        temperature=request.temperature,
        max_new_tokens=request.max_new_tokens,
        verifier=request.verifier,
        seed=request.seed,
        keep_truncated=request.keep_truncated,
        compat=request.compat,
        limit=request.limit,
        dtype=request.dtype,
    )


def default_directory(subject: Subject, protocol: Protocol) -> Path:
    """evals/MODEL-TEMPLATE-WAY-TOKENS, below the run where it is a run's checkpoint."""
    way = "greedy" if protocol.temperature == 0 else f"n{protocol.n}-t{protocol.temperature:g}"
    name = f"{PurePosixPath(protocol.model).name}-{protocol.template}-{way}-{protocol.max_new_tokens}".replace(":", "-")
    return (subject.run or Path()) / "evals" / (name + (f"-first{protocol.limit}" if protocol.limit else ""))


def open_sampler(
    endpoint: EndpointSampler | None,
    path: str,
    request,
    asked: Mapping[str, tuple[Sequence[Problem], str]],
    stack: contextlib.ExitStack,
    say: Callable[[str], None],
) -> tuple[Sampler, dict[str, list[Prompt]]]:
    """What samples, closed with the `stack`, and its prompts: for each name, problems rendered by a template."""
    if endpoint is not None:
        return endpoint, {name: text_prompts(problems, template) for name, (problems, template) in asked.items()}
    sampler, prompts = load_engine(path, request, asked, say)
    stack.callback(sampler.close)
    return sampler, prompts


def load_engine(path: str, request, asked: Mapping[str, tuple[Sequence[Problem], str]], say: Callable[[str], None]):
    """The engine on the model, on a GPU if there is one, and its prompts by name."""
    from fastgrpo.model import load_model, load_tokenizer

    path = model_directory(path, say)
    tokenizer = load_tokenizer(path)
    prompts = {
        name: render_prompts(problems, TEMPLATES[template], tokenizer, NEVER_DROPPED)[0] for name, (problems, template) in asked.items()
    }
    model = load_model(path, request.dtype)
    longest = max(len(prompt.token_ids) for found in prompts.values() for prompt in found)
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and longest + request.max_new_tokens > context:
        say(
            f"careful: {longest} tokens of the longest prompt and {request.max_new_tokens} new ones exceed the model's context of {context}"
        )
    settings = RolloutConfig(engine=request.engine, cache_gib=request.cache_gib)
    return make_engine(settings, model, tokenizer, longest + request.max_new_tokens), prompts


def text_prompts(problems: Sequence[Problem], template: str) -> list[Prompt]:
    """Prompts for a server that tokenises by itself."""
    render = TEMPLATES[template].render
    return [Prompt(p.id, (), p.answer, p.problem, p.columns, text=render(p.problem)) for p in problems]
