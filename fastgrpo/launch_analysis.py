"""From the arguments of `fastgrpo analyze` to its summary: what is cheap is checked first; a model is loaded if responses are missing."""

from __future__ import annotations

import contextlib
import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastgrpo.analyze.endpoint_judge import EndpointJudge
from fastgrpo.analyze.judge import Judge, RuleJudge
from fastgrpo.analyze.program import ANALYSES, Plan, run_analyses
from fastgrpo.analyze.samples import Protocol, Source
from fastgrpo.benchmark import open_directory
from fastgrpo.data import load_problems
from fastgrpo.errors import InputError
from fastgrpo.launch_evaluation import CHOICES, find_endpoint, open_sampler, require_choices
from fastgrpo.model_source import Subject, find_subject, weights_stamp
from fastgrpo.templates import TEMPLATES
from fastgrpo.types import Problem

ALL = "all"
RULES = "rules"


@dataclass(frozen=True, slots=True)
class AnalysisRequest:
    """The arguments of `fastgrpo analyze`, under their names there."""

    what: str
    model: str
    data: str
    templates: str
    template: str
    temperatures: str
    n: int
    questions: int
    max_new_tokens: int
    verifier: str
    judge: str
    judge_model: str
    judge_concurrency: int
    judge_timeout: float
    judge_retries: int
    judge_prices: str
    step: str
    seed: int
    problem: str
    answer: str
    level: str
    dtype: str
    engine: str
    cache_gib: float
    served_model: str
    chat: bool
    concurrency: int
    out: Path | None


def launch_analysis(request: AnalysisRequest, say: Callable[[str], None]) -> tuple[dict, tuple[str, ...], Path]:
    """Analyses; returns the summary, which analyses were done, and the directory. Raises the errors of fastgrpo.errors."""
    require_choices(request, {"what": (*ANALYSES, ALL), **CHOICES})
    plan, prices = plan_of(request), judge_prices(request)
    subject = find_subject(request.model, request.step)
    problems = draw_questions(request, say)
    endpoint = find_endpoint(subject, request)
    protocol = protocol_of(request, subject, endpoint.model if endpoint else "")
    directory = request.out or default_directory(subject, protocol)
    judge = make_judge(request, directory, prices)
    open_directory(directory, protocol)
    needed = {template: (problems, template) for template in plan.needed_templates(directory)}
    with contextlib.ExitStack() as stack:
        opened = functools.cache(lambda: open_sampler(endpoint, subject.path, request, needed, stack, say))
        name = PurePosixPath(request.data).name
        source = Source(protocol, name, problems, request.level, directory, opened, say)
        if isinstance(judge, EndpointJudge):
            judge.open()
        return run_analyses(plan, source, judge), tuple(plan.analyses), directory


def plan_of(request: AnalysisRequest) -> Plan:
    """Raises InputError for unknown templates, and temperatures that are none."""
    templates = _parts(request.templates)
    for option, names in (("templates", templates), ("template", [request.template] if request.template else [])):
        if unknown := [name for name in names if name not in TEMPLATES]:
            raise InputError(f"--{option} {unknown[0]!r} does not exist; it can be {', '.join(TEMPLATES)}")
    try:
        temperatures = [float(part) for part in _parts(request.temperatures)]
    except ValueError:
        temperatures = [math.nan]
    if not all(0 <= temperature < math.inf for temperature in temperatures):
        raise InputError(f"--temperatures {request.temperatures!r} must be numbers from 0 on, comma-separated, such as 0.6,1")
    if not templates or not temperatures:
        raise InputError(f"--{'temperatures' if templates else 'templates'} names none")
    if request.n > 1 and 0 in temperatures:
        raise InputError(f"-n {request.n} with temperature 0 would draw the same response {request.n} times; leave 0 out, or set -n 1")
    analyses = ANALYSES if request.what == ALL else (request.what,)
    return Plan(analyses, list(dict.fromkeys(templates)), request.template, list(dict.fromkeys(temperatures)))


def draw_questions(request: AnalysisRequest, say: Callable[[str], None]) -> tuple[Problem, ...]:
    """So many problems of the data, drawn by the seed, in the data's order; all where there are fewer."""
    found = load_problems(request.data, request.problem, request.answer)
    for line in (*found.warnings, *found.skipped_lines()):
        say(line)
    if len(found.problems) < request.questions:
        say(f"{request.data}: {len(found.problems)} questions, fewer than --questions {request.questions}")
        return found.problems
    chosen = random.Random(f"{request.seed}/questions").sample(range(len(found.problems)), request.questions)
    return tuple(found.problems[i] for i in sorted(chosen))


def protocol_of(request: AnalysisRequest, subject: Subject, served: str) -> Protocol:
    return Protocol(
        model=served or subject.path,
        weights="" if served else weights_stamp(subject.path),
        data=request.data,
        problem=request.problem,
        answer=request.answer,
        questions=request.questions,
        n=request.n,
        max_new_tokens=request.max_new_tokens,
        verifier=request.verifier,
        seed=request.seed,
        dtype="" if served else request.dtype,
    )


def default_directory(subject: Subject, protocol: Protocol) -> Path:
    """analyses/MODEL-DATA-nN-TOKENS, below the run where it is a run's checkpoint."""
    model, data = PurePosixPath(protocol.model).name, PurePosixPath(protocol.data).name
    name = f"{model}-{data}-n{protocol.n}-{protocol.max_new_tokens}".replace(":", "-")
    return (subject.run or Path()) / "analyses" / name


def make_judge(request: AnalysisRequest, directory: Path, prices: tuple[float, float] | None) -> Judge:
    """Rules, or a server that is asked for its model at once. Raises InputError for what is neither."""
    if request.judge == RULES:
        if request.judge_model or prices:
            raise InputError("--judge-model and --judge-prices belong to a judge behind a URL; give --judge URL as well")
        return RuleJudge()
    if not request.judge.startswith(("http://", "https://")):
        raise InputError(f"--judge {request.judge!r} is no judge; it can be {RULES}, or the URL of an OpenAI-compatible server")
    return EndpointJudge(
        request.judge,
        request.judge_model,
        directory / "judge.jsonl",
        concurrency=request.judge_concurrency,
        timeout=request.judge_timeout,
        retries=request.judge_retries,
        prices=prices,
    )


def judge_prices(request: AnalysisRequest) -> tuple[float, float] | None:
    """Raises InputError for anything but two numbers."""
    if not request.judge_prices:
        return None
    try:
        prompt, completion = (float(part) for part in _parts(request.judge_prices))
    except ValueError:
        prompt = completion = math.nan
    if not (0 <= prompt < math.inf and 0 <= completion < math.inf):
        wanted = "two numbers: the prices of a million prompt tokens and of a million completion tokens, such as 0.15,0.6"
        raise InputError(f"--judge-prices {request.judge_prices!r} must be {wanted}")
    return prompt, completion


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
