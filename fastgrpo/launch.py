"""From a resolved config to a finished run: everything cheap is checked first, then the heavy parts are built and trained."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.checkpoint import save_policy
from fastgrpo.config import Config, ResolvedConfig, to_yaml
from fastgrpo.data import load_problems, render_prompts
from fastgrpo.errors import InputError, SetupError
from fastgrpo.pretrain import base_model_directory
from fastgrpo.rewards import Grader
from fastgrpo.run import Observer, Run
from fastgrpo.templates import TEMPLATES

if TYPE_CHECKING:
    from fastgrpo.trainer import Parts

BUILTIN_MODEL = "builtin:base"
MODEL_FILES = {"config.json": ["config.json"], "weights": ["*.safetensors", "*.bin"], "a tokenizer": ["tokenizer*", "vocab*"]}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def launch(resolved: ResolvedConfig, observer: Observer) -> tuple[dict, Path]:
    """Trains; returns the summary and the run directory. Raises the errors of fastgrpo.errors, before any long work where it can."""
    config, name = resolved.config, resolved.name
    require_one_process()
    require_model(config.model)
    sources = (config.data.train, *config.data.eval)
    problems = {source: load_problems(source, config.data.problem, config.data.answer) for source in sources}
    run = Run(Path(config.run_dir or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"), observer)
    observer.begin(name, config.steps)
    try:
        from fastgrpo.trainer import train  # brings torch: seconds of loading that nobody with a wrong setting should wait for

        run.write("config.yaml", to_yaml(resolved))
        with run.phase("base model"):
            path = model_directory(config, run)
        with Grader(TEMPLATES[config.template].answer_form, config.verifier) as grader:
            summary = train(config, build_parts(config, path, problems, grader, run), run)
        run.write("summary.json", json.dumps(summary, indent=1) + "\n")
    except BaseException as error:
        run.log(f"stopped: {type(error).__name__}: {error}")
        raise
    finally:
        observer.end()
        run.close()
    return summary, run.directory


def build_parts(config: Config, path: str, problems: dict, grader: Grader, run: Run) -> Parts:
    """Tokenizer, prompts, model, learner, engine, and a frozen reference only where the KL term asks for one."""
    from fastgrpo.learner.native import NativeLearner
    from fastgrpo.model import load_model, load_tokenizer
    from fastgrpo.rollout.native import NativeEngine
    from fastgrpo.trainer import Parts

    template, tokenizer = TEMPLATES[config.template], load_tokenizer(path)
    prompts = {}
    for source, rows in problems.items():
        prompts[source], dropped = render_prompts(rows, template, tokenizer, config.max_prompt_tokens)
        run.note(f"{source}: {len(prompts[source])} prompts, {dropped} longer than {config.max_prompt_tokens} tokens and dropped")
    run.note(f"first prompt: {template.render(problems[config.data.train][0].problem)!r}")
    model = load_model(path, config.dtype)
    reference = load_model(path, config.dtype) if config.loss.beta > 0 else None
    run.note(f"model: {path}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters in {config.dtype}")
    return Parts(
        engine=NativeEngine(model, tokenizer),
        learner=NativeLearner(model, config.loss, config.temperature, lambda update: config.lr, config.grad_clip),
        grader=grader,
        prompts=prompts[config.data.train],
        held_out={source: prompts[source] for source in config.data.eval},
        reference=reference,
        stop=template.stop,
        save=lambda step: save_policy(run.directory / "checkpoints", step, model, tokenizer),
    )


def model_directory(config: Config, run: Run) -> str:
    """The path or hub id to load; the built-in base model is made, or taken from the cache."""
    if config.model == BUILTIN_MODEL:
        return str(base_model_directory(cache_directory(), run.note))
    return config.model


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
