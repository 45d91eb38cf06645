"""How every training run starts, on problems or on texts: the ranks meet, and an earlier run is found and gone on with."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.checkpoint import Checkpoints
from fastgrpo.errors import InputError
from fastgrpo.model_source import model_directory
from fastgrpo.progress import Progress
from fastgrpo.ranks import Ranks, join_ranks
from fastgrpo.resume import Resume, find_resume, require_same_run
from fastgrpo.run import require_usable
from fastgrpo.saved_state import SavedState, restore_random_state

if TYPE_CHECKING:
    from fastgrpo.config import Config, ResolvedConfig
    from fastgrpo.config_pretrain import PretrainConfig
    from fastgrpo.learner import Learner
    from fastgrpo.trackers.mirror import Mirrors


def find_earlier(resume: str, resolved: ResolvedConfig, allow_changes: bool, say: Callable[[str], None]) -> Resume | None:
    """What `--resume` asks to go on with. Raises InputError where it cannot, or where run_dir holds something else."""
    found = find_resume(resume, resolved, say)
    if resolved.config.run_dir and not (found and found.in_place):
        require_usable(Path(resolved.config.run_dir))
    if found and found.checkpoint:
        require_same_run(found, resolved.config, allow_changes, say)
    return found


def run_directory(resolved: ResolvedConfig, found: Resume | None, ranks: Ranks) -> Path:
    """Where the run is written, the same on every rank."""
    new = Path(resolved.config.run_dir or f"runs/{resolved.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    return ranks.gather(found.directory if found else new)[0]


def restore(found: Resume | None, learner: Learner, ranks: Ranks, say: Callable[[str], None]) -> Progress:
    """Puts the learner, and torch's random state, to where the found run was saved, and gives its progress; a new one without it."""
    if not (found and found.checkpoint):
        return Progress()
    if not found.checkpoint.is_dir():
        raise InputError(f"rank {ranks.rank} cannot see {found.checkpoint}: to resume, all machines need the same disk")
    saved = SavedState(found.checkpoint / "trainer")
    restore_random_state(saved, ranks)
    learner.load_state(saved.trained(), found.progress.updates)
    say(f"resuming after step {found.progress.step} of {found.run}")
    return found.progress


def open_checkpoints(
    directory: Path, ranks: Ranks, config: Config | PretrainConfig, model, tokenizer, learner: Learner, facts: Mapping[str, str]
) -> Checkpoints:
    """Those of the run in `directory`."""
    adapter = learner.model if config.learner.lora_rank and not config.learner.spreads_weights else None
    return Checkpoints(directory / "checkpoints", model, tokenizer, learner, ranks, config.checkpoint.keep, facts, adapter)


def open_mirror(resolved: ResolvedConfig, directory: Path, ranks: Ranks, stack: contextlib.ExitStack) -> Mirrors | None:
    """The trackers that log.trackers names, on the first rank; they import their packages while the rest is built."""
    names = resolved.config.log.trackers
    if not names or not ranks.first:
        return None
    from fastgrpo.trackers.mirror import Mirrors

    mirror = Mirrors(names, directory / "trackers")
    stack.callback(mirror.close, True, lambda text: None)  # where the run fails before it begins
    return mirror


def meet(model: str, say: Callable[[str], None]) -> tuple[Ranks, str]:
    """This process among the ranks, and the model's path: a built-in one is made once on each machine, while its others wait."""
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        path = model_directory(model, say)
        return join_ranks(), path
    return join_ranks(), model_directory(model, say)
