"""From resolved settings to a pretrained model: texts are read and checked first, then the heavy parts are built and trained."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.config import ResolvedConfig, to_yaml
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.engines import make_learner, with_lora
from fastgrpo.errors import InputError
from fastgrpo.model_source import require_model
from fastgrpo.ranks import Ranks
from fastgrpo.resume import Resume, fingerprints, require_same_data
from fastgrpo.run import Observer, Run
from fastgrpo.saved_state import seed_random_state
from fastgrpo.schedule import learning_rate
from fastgrpo.starting import find_earlier, meet, open_checkpoints, open_mirror, restore, run_directory
from fastgrpo.stop import Stop
from fastgrpo.texts import Texts, load_texts
from fastgrpo.trackers import require_installed
from fastgrpo.watchdog import Watchdog
from fastgrpo.windows import Windows, count_updates, make_windows

if TYPE_CHECKING:
    from fastgrpo.pretrain import TextParts
    from fastgrpo.progress import Progress


def launch_pretraining(
    resolved: ResolvedConfig, observer: Observer, resume: str = "never", allow_changes: bool = False
) -> tuple[dict, Path]:
    """Trains, as one of the ranks that were started; returns the summary and the run directory.

    `resume` is what --resume says. Raises the errors of fastgrpo.errors, before any long work where it can.
    """
    config, said = resolved.config, []

    def say(text: str) -> None:
        said.append(text)  # for the log, once there is one
        observer.note(text)

    rank = int(os.environ.get("RANK", "0"))
    found = find_earlier(resume, resolved, allow_changes, say) if rank == 0 else None  # it may have to read all of a checkpoint
    check(config)
    texts = {source: load_texts(source, config.data) for source in (*config.data.train, *config.data.eval)}
    if found and found.checkpoint:
        require_same_data(found, texts, allow_changes, say)
    for line in (line for each in texts.values() for line in each.lines()):
        say(line)
    try:
        with (
            Stop(config.checkpoint.before) as stop,
            Watchdog(rank, config.health.phase_seconds) as watchdog,
            contextlib.ExitStack() as stack,
        ):
            ranks, path = meet(config.model, say)
            seed_random_state(config.seed, ranks)
            found = ranks.gather(found)[0]
            directory = run_directory(resolved, found, ranks)
            mirror = open_mirror(resolved, directory, ranks, stack)
            facts = {"config.yaml": to_yaml(resolved), "data.json": fingerprints(texts)}
            parts, progress = build(config, texts, path, directory, facts, ranks, found, say)
            observer.begin(resolved.name, parts.updates)
            if mirror is not None:
                mirror.require_usable()
            with Run(directory, observer, ranks, watchdog, found, stop, mirror) as run:
                if mirror is not None:
                    mirror.start(directory.name, resolved.values(), progress.step)
                run.log("\n".join(said))
                run.write("config.yaml", facts["config.yaml"])
                parts.checkpoints.repair(progress if found else None)
                from fastgrpo.pretrain import pretrain

                summary = pretrain(config, parts, run, progress)
                run.write("summary.json", json.dumps(summary, indent=1) + "\n")
                ranks.gather("done")
            return summary, directory
    finally:
        observer.end()


def check(config: PretrainConfig) -> None:
    """What can be told before anything heavy is loaded, and before any rank is started. Raises the errors of fastgrpo.errors."""
    require_model(config.model)
    require_installed(config.log.trackers)


def build(
    config: PretrainConfig,
    texts: Mapping[str, Texts],
    path: str,
    directory: Path,
    facts: Mapping[str, str],
    ranks: Ranks,
    found: Resume | None,
    say: Callable[[str], None],
) -> tuple[TextParts, Progress]:
    """The heavy part: all that pretraining is made of, and how far the found run has come."""
    from fastgrpo.model import load_model, load_tokenizer, training_cost
    from fastgrpo.pretrain import TextParts

    tokenizer = load_tokenizer(path)
    windows, held_out = tokenise(config, texts, tokenizer, path, ranks, say)
    updates = count_updates(windows, config.epochs, config.tokens_per_update)
    tokens = config.epochs * windows.predicted
    say(f"{config.epochs} epochs of {windows.predicted:,} tokens: {updates:,} updates of {tokens / updates:,.0f} tokens on average")
    model = load_model(path, config.dtype, config.learner.attention, say)
    require_context(model, config.context)
    ranks.same_weights(model)
    cost = training_cost(model)  # before the learner may spread the weights
    lr_at = learning_rate(config.lr, config.warmup, config.schedule, updates)
    learner = make_learner(config, with_lora(config, model), lr_at)
    progress = restore(found, learner, ranks, say)
    checkpoints = open_checkpoints(directory, ranks, config, model, tokenizer, learner, facts)
    return TextParts(learner, windows, held_out, updates, lr_at, cost, checkpoints), progress


def tokenise(
    config: PretrainConfig, texts: Mapping[str, Texts], tokenizer, path: str, ranks: Ranks, say: Callable[[str], None]
) -> tuple[Windows, dict[str, Windows]]:
    """The windows to train on, of all sources together, and those of each source held out; says how many texts were cut."""
    if tokenizer.eos_token_id is None:
        raise InputError(f"model={path}: its tokenizer has no end-of-sequence token, with which every text ends")

    def windows_of(name: str, given: list) -> Windows:
        windows = make_windows(given, tokenizer, config.context, ranks)
        if not windows.predicted:
            raise InputError(f"{name}: no text has a token to predict")
        if windows.cut:
            say(f"{name}: {windows.cut:,} of {windows.texts:,} texts are longer than context={config.context} and were cut")
        return windows

    training = [text for source in config.data.train for text in texts[source].texts]
    held_out = {source: windows_of(source, texts[source].texts) for source in config.data.eval}
    return windows_of("training texts", training), held_out


def require_context(model, context: int) -> None:
    """Raises InputError where a window may be longer than the positions that the model knows."""
    known = getattr(model.config, "max_position_embeddings", None)
    if known is not None and context > known:
        raise InputError(f"context={context} exceeds the model's context of {known}: lower it")
