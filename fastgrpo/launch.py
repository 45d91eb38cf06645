"""From a resolved config to a finished run: everything cheap is checked first, then the heavy parts are built and trained."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from fastgrpo.checkpoint import save_policy
from fastgrpo.config import Config, ResolvedConfig, to_yaml
from fastgrpo.data import load_problems, render_prompts
from fastgrpo.errors import InputError, SetupError
from fastgrpo.pretrain import base_model_directory
from fastgrpo.rewards import Grader
from fastgrpo.run import Observer, Run
from fastgrpo.templates import TEMPLATES
from fastgrpo.trainer import Parts, train

BUILTIN_MODEL = "builtin:base"


def launch(resolved: ResolvedConfig, observer: Observer) -> tuple[dict, Path]:
    """Trains; returns the summary and the run directory. Raises the errors of fastgrpo.errors, before any long work where it can."""
    config, name = resolved.config, resolved.name
    require_one_process()
    problems = {source: load_problems(source, *_columns(config, source)) for source in (config.data.train, *config.data.eval)}
    run = Run(Path(config.run_dir or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"), observer)
    observer.begin(name, config.steps)
    try:
        run.write("config.yaml", to_yaml(resolved))
        with run.phase("base model"):
            path = model_directory(config, run)
        with Grader(TEMPLATES[config.template].answer_form, config.verifier) as grader:
            summary = train(config, build_parts(config, path, problems, grader, run), run)
        run.write("summary.json", json.dumps(summary, indent=1) + "\n")
    except BaseException as error:
        run.note(f"stopped: {type(error).__name__}: {error}")
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
    if config.model.startswith("builtin:"):
        raise InputError(f"model={config.model} does not exist; the one built-in model is {BUILTIN_MODEL}")
    return config.model


def cache_directory() -> Path:
    """FASTGRPO_CACHE, or fastgrpo below the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastgrpo"
    return Path(os.environ.get("FASTGRPO_CACHE") or default)


def require_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SetupError("WORLD_SIZE is above 1, but `fastgrpo train` runs in one process so far; start it without torchrun")


def _columns(config: Config, source: str) -> tuple[str, str]:
    return config.data.problem, config.data.answer
