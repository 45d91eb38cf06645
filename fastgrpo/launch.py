"""From a resolved config to a finished run: everything cheap is checked first, then the heavy parts are built and trained."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.config import Config, ResolvedConfig, to_yaml
from fastgrpo.data import ProblemSet, load_problems, render_prompts
from fastgrpo.engines import engine_lines, make_both
from fastgrpo.errors import InputError
from fastgrpo.model_source import require_model
from fastgrpo.ranks import launched_ranks
from fastgrpo.resume import Resume, fingerprints, require_same_data
from fastgrpo.rewards import Grader, Scorer, require_rewards
from fastgrpo.rewards.preflight import require_working_functions, require_working_grader
from fastgrpo.run import Observer, Run
from fastgrpo.saved_state import seed_random_state
from fastgrpo.starting import find_earlier, meet, open_checkpoints, open_mirror, restore, run_directory
from fastgrpo.stop import Stop
from fastgrpo.templates import TEMPLATES
from fastgrpo.trackers import require_installed
from fastgrpo.watchdog import Watchdog

if TYPE_CHECKING:
    from fastgrpo.balance import Cost
    from fastgrpo.learner import Learner
    from fastgrpo.rollout import RolloutEngine
    from fastgrpo.types import Prompt


def launch(resolved: ResolvedConfig, observer: Observer, resume: str = "never", allow_changes: bool = False) -> tuple[dict, Path]:
    """Trains, as one of the ranks that were started; returns the summary and the run directory.

    `resume` is what --resume says. Raises the errors of fastgrpo.errors, before any long work where it can.
    """
    config, said, first = resolved.config, [], int(os.environ.get("RANK", "0")) == 0
    found = find_earlier(resume, resolved, allow_changes, said.append) if first else None  # it may have to read all of a checkpoint
    check(config, launched_ranks())
    sources = (config.data.train, *config.data.eval)
    sets = {source: load_problems(source, config.data.problem, config.data.answer) for source in sources}
    if found and found.checkpoint:
        require_same_data(found, sets, allow_changes, said.append)
    observer.begin(resolved.name, config.steps)
    try:
        with Stop(config.checkpoint.before) as stop:
            return _run(resolved, sets, observer, stop, found, said)
    finally:
        observer.end()


def check(config: Config, ranks: int) -> None:
    """What can be told before anything heavy is loaded, and before any of the ranks is started. Raises the errors of fastgrpo.errors."""
    require_model(config.model)
    require_rewards(config.reward.function, config.reward.url)
    require_installed(config.log.trackers)
    if config.prompts_per_step < ranks:
        raise InputError(f"prompts_per_step={config.prompts_per_step} leaves some of {ranks} ranks without a prompt: raise it")


def _run(
    resolved: ResolvedConfig, sets: Mapping[str, ProblemSet], observer: Observer, stop: Stop, found: Resume | None, said: list[str]
) -> tuple[dict, Path]:
    """The heavy part: torch is loaded only here, seconds that nobody with a wrong setting should wait for."""
    config = resolved.config
    keep = said.append  # until there is a log

    def say(text: str) -> None:
        keep(text)
        observer.note(text)

    for line in said:
        observer.note(line)
    for line in (line for each in sets.values() for line in (*each.warnings, *each.skipped_lines())):
        say(line)
    rank = int(os.environ.get("RANK", "0"))
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(rank, config.health.phase_seconds))

        def stage(name: str) -> None:
            observer.phase(name)
            watchdog.stage(name)

        stage("checking rewards")
        scorer, grader = open_rewards(config, stack, say)
        if rank == 0:
            check_rewards(config, sets[config.data.train], scorer)
        stage("meeting the other ranks")
        ranks, path = meet(config.model, say)
        seed_random_state(config.seed, ranks)
        found = ranks.gather(found)[0]
        directory = run_directory(resolved, found, ranks)
        mirror = open_mirror(resolved, directory, ranks, stack)
        stage("loading the model")
        loaded = load_all(path, config, sets, say)
        ranks.same_weights(loaded[1])
        stage("building learner and engine")
        learner, engine, cost = build(config, loaded, stack, say)
        stage("restoring")
        progress = restore(found, learner, ranks, say)
        if mirror is not None:
            mirror.require_usable()
        run = stack.enter_context(Run(directory, observer, ranks, watchdog, found, stop, mirror))
        if mirror is not None:
            mirror.start(directory.name, resolved.values(), progress.step)
        run.log("\n".join(said))
        keep = run.log
        run.write("config.yaml", to_yaml(resolved))
        from fastgrpo.trainer import Parts, train

        tokenizer, model, reference, prompts = loaded
        facts = {"config.yaml": to_yaml(resolved), "data.json": fingerprints(sets)}
        checkpoints = open_checkpoints(directory, ranks, config, model, tokenizer, learner, facts)
        checkpoints.repair(progress if found else None)
        stop_texts, held_out = TEMPLATES[config.template].stop, {source: prompts[source] for source in config.data.eval}
        parts = Parts(engine, learner, scorer, grader, prompts[config.data.train], held_out, reference, cost, stop_texts, checkpoints)
        summary = train(config, parts, run, progress)
        run.write("summary.json", json.dumps(summary, indent=1) + "\n")
        ranks.gather("done")  # none takes its engine down while another still needs it
    return summary, directory


def build(config: Config, loaded: tuple, stack: contextlib.ExitStack, say: Callable[[str], None]) -> tuple[Learner, RolloutEngine, Cost]:
    """Learner and engine, which `stack` closes, and what a sequence costs to learn from."""
    from fastgrpo.model import training_cost

    tokenizer, model, *_ = loaded
    cost = training_cost(model)  # before the learner may spread the weights
    learner, engine = make_both(config, model, tokenizer)
    stack.callback(engine.close)
    for line in engine_lines(engine):
        say(line)
    return learner, engine, cost


def load_all(path: str, config: Config, sets: Mapping[str, ProblemSet], say: Callable[[str], None]):
    """Tokenizer, model, reference model (None without a KL term) and the prompts of every set."""
    from fastgrpo.model import load_model, load_tokenizer

    tokenizer = load_tokenizer(path)
    prompts = render_all(sets, config, tokenizer, say)
    model = load_model(path, config.dtype, config.learner.attention, say)
    require_context(model, prompts, config.max_new_tokens)
    reference = None
    if config.loss.beta > 0:
        stays_whole = config.learner.lora_rank and not config.learner.spreads_weights
        reference = model if stays_whole else load_model(path, config.dtype, config.learner.attention)  # adapters leave the model as it is
    say(f"model: {path}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters in {config.dtype}")
    return tokenizer, model, reference, prompts


def open_rewards(config: Config, stack: contextlib.ExitStack, say: Callable[[str], None]) -> tuple[Scorer, Grader]:
    """The scorer of training and the grader of evaluation: the same worker processes where both compare answers alike."""
    form, compat = TEMPLATES[config.template].answer_form, config.reward.compat
    grader = stack.enter_context(Grader(form, config.verifier, compat=compat))
    scorer = Scorer(
        *(grader, config.reward.function, config.reward.url, config.reward.weights, config.samples_per_prompt),
        deadline=config.reward.deadline,
        workers=config.reward.workers,
        say=say,
    )
    stack.enter_context(scorer)
    if config.data.eval and config.eval.verifier != config.verifier:
        grader = stack.enter_context(Grader(form, config.eval.verifier, compat=compat))
    return scorer, grader


def check_rewards(config: Config, training: ProblemSet, scorer: Scorer) -> None:
    """Before any long work: golds must grade as right and others as wrong, and reward functions must answer."""
    form, functions = TEMPLATES[config.template].answer_form, config.reward.function
    if config.reward.preflight and ("verifier" in functions or not (functions or config.reward.url)):
        require_working_grader(training.source, training.problems, form, scorer.grader)
    if config.reward.preflight and (config.reward.url or set(functions) - {"verifier"}):
        require_working_functions(training.problems, form, scorer, config.samples_per_prompt)


def render_all(sets: Mapping[str, ProblemSet], config: Config, tokenizer, say: Callable[[str], None]) -> dict[str, list[Prompt]]:
    """The prompts of every source; says how many were dropped, and shows the first with its white space."""
    template, prompts = TEMPLATES[config.template], {}
    for source, found in sets.items():
        prompts[source], dropped = render_prompts(found.problems, template, tokenizer, config.max_prompt_tokens)
        say(f"{source}: {len(prompts[source])} prompts, {dropped} longer than {config.max_prompt_tokens} tokens and dropped")
    say(f"first prompt: {template.render(sets[config.data.train].problems[0].problem)!r}")
    return prompts


def require_context(model, prompts: Mapping[str, list[Prompt]], max_new_tokens: int) -> None:
    """Raises InputError where a prompt and its response may outgrow the positions that the model knows."""
    context = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(prompt.token_ids) for found in prompts.values() for prompt in found)
    if context is not None and longest + max_new_tokens > context:
        raise InputError(
            f"the longest prompt has {longest} tokens, and max_new_tokens={max_new_tokens} more exceed the model's context of {context}: "
            "lower max_prompt_tokens or max_new_tokens"
        )
