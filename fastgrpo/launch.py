"""From a resolved config to a finished run: everything cheap is checked first, then the heavy parts are built and trained."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.checkpoint import save_policy
from fastgrpo.config import Config, ResolvedConfig, to_yaml
from fastgrpo.data import load_problems, render_prompts
from fastgrpo.errors import InputError, SetupError
from fastgrpo.pretrain import base_model_directory
from fastgrpo.rewards import Grader
from fastgrpo.run import Observer, Run, require_usable
from fastgrpo.templates import TEMPLATES

if TYPE_CHECKING:
    from fastgrpo.trainer import Parts
    from fastgrpo.types import Problem, Prompt

BUILTIN_MODEL = "builtin:base"
MODEL_FILES = {"config.json": ["config.json"], "weights": ["*.safetensors", "*.bin"], "a tokenizer": ["tokenizer*", "vocab*"]}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def launch(resolved: ResolvedConfig, observer: Observer) -> tuple[dict, Path]:
    """Trains; returns the summary and the run directory. Raises the errors of fastgrpo.errors, before any long work where it can."""
    config, name = resolved.config, resolved.name
    directory = Path(config.run_dir or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    require_one_process()
    require_usable(directory)
    require_model(config.model)
    sources = (config.data.train, *config.data.eval)
    problems = {source: load_problems(source, config.data.problem, config.data.answer) for source in sources}
    observer.begin(name, config.steps)
    try:
        return _run(resolved, directory, problems, observer), directory
    finally:
        observer.end()


def _run(resolved: ResolvedConfig, directory: Path, problems: Mapping[str, list[Problem]], observer: Observer) -> dict:
    """The heavy part: torch is loaded only here, seconds that nobody with a wrong setting should wait for."""
    from fastgrpo.model import load_model, load_tokenizer
    from fastgrpo.trainer import train

    config, said = resolved.config, []

    def say(text: str) -> None:
        said.append(text)
        observer.note(text)

    path = model_directory(config.model, observer, say)
    tokenizer = load_tokenizer(path)
    prompts = render_all(problems, config, tokenizer, say)
    model = load_model(path, config.dtype)
    reference = load_model(path, config.dtype) if config.loss.beta > 0 else None
    say(f"model: {path}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters in {config.dtype}")
    with Run(directory, observer) as run, Grader(TEMPLATES[config.template].answer_form, config.verifier) as grader:
        run.log("\n".join(said))
        run.write("config.yaml", to_yaml(resolved))
        summary = train(config, build_parts(config, model, reference, tokenizer, prompts, grader, run), run)
        run.write("summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def render_all(problems: Mapping[str, list[Problem]], config: Config, tokenizer, say: Callable[[str], None]) -> dict[str, list[Prompt]]:
    """The prompts of every source; says how many were dropped, and shows the first with its white space."""
    template, prompts = TEMPLATES[config.template], {}
    for source, rows in problems.items():
        prompts[source], dropped = render_prompts(rows, template, tokenizer, config.max_prompt_tokens)
        say(f"{source}: {len(prompts[source])} prompts, {dropped} longer than {config.max_prompt_tokens} tokens and dropped")
    say(f"first prompt: {template.render(problems[config.data.train][0].problem)!r}")
    return prompts


def build_parts(config: Config, model, reference, tokenizer, prompts: Mapping[str, list[Prompt]], grader: Grader, run: Run) -> Parts:
    """Learner and engine on the same weights, with all that the loop needs; `reference` is None without a KL term."""
    from fastgrpo.learner.native import NativeLearner
    from fastgrpo.rollout.native import NativeEngine
    from fastgrpo.trainer import Parts

    engines, learners = {"native": NativeEngine}, {"native": NativeLearner}
    return Parts(
        engine=engines[config.rollout.engine](model, tokenizer),
        learner=learners[config.learner.engine](model, config.loss, config.temperature, lambda update: config.lr, config.grad_clip),
        grader=grader,
        prompts=prompts[config.data.train],
        held_out={source: prompts[source] for source in config.data.eval},
        reference=reference,
        stop=TEMPLATES[config.template].stop,
        save=lambda step: save_policy(run.directory / "checkpoints", step, model, tokenizer),
    )


def model_directory(model: str, observer: Observer, say: Callable[[str], None]) -> str:
    """The path or hub id to load; the built-in base model is made, or taken from the cache."""
    if model == BUILTIN_MODEL:
        observer.phase("base model")
        return str(base_model_directory(cache_directory(), say))
    return model


def cache_directory() -> Path:
    """FASTGRPO_CACHE, or fastgrpo below the user's cache directory; made if need be. Raises SetupError where it cannot be."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastgrpo"
    directory = Path(os.environ.get("FASTGRPO_CACHE") or default)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"the cache {directory} cannot be made: {error.strerror}; set FASTGRPO_CACHE to another directory") from error
    return directory


def require_model(model: str) -> None:
    """Raises InputError for what cannot be a model, before anything heavy is loaded; whether the Hub has a name is seen later."""
    allowed = f"it can be {BUILTIN_MODEL}, a model directory, or ORG/NAME on the Hub"
    if model == BUILTIN_MODEL:
        cache_directory()
    elif model.startswith("builtin:"):
        raise InputError(f"model={model} does not exist; {allowed}")
    elif Path(model).exists():
        missing = [part for part, patterns in MODEL_FILES.items() if not any(any(Path(model).glob(pattern)) for pattern in patterns)]
        if missing:
            raise InputError(f"model={model} is not a Hugging Face model directory: it lacks {', '.join(missing)}; {allowed}")
    elif not HUB_ID.fullmatch(model):
        raise InputError(f"model={model}: no such directory; {allowed}")


def require_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SetupError("WORLD_SIZE is above 1, but `fastgrpo train` runs in one process so far; start it without torchrun")
