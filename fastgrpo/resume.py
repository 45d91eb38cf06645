"""Going on with an earlier run: which checkpoint, whether the run is still the same one, and what its directory must look like then."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from fastgrpo.checkpoint import PROGRESS, steps
from fastgrpo.config import Config, ResolvedConfig, load_config
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.data import ProblemSet
from fastgrpo.errors import InputError
from fastgrpo.manifest import flaw
from fastgrpo.progress import Progress
from fastgrpo.texts import Texts

FREE = ("steps", "run_dir", "lr", "grad_clip", "tokens_per_pack", "data.eval")
FREE_SECTIONS = ("learner.", "rollout.", "eval.", "checkpoint.", "log.", "health.")
FREE_REWARDS = ("reward.deadline", "reward.workers", "reward.preflight")
"""Settings that may change on the way: they leave the algorithm as it is, or are turned by hand."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Going on in `directory` from `checkpoint`, of the run in `run`: the same directory, unless a new run branches off.

    Without a checkpoint, a run that ended before its first one starts over.
    """

    directory: Path
    run: Path
    checkpoint: Path | None
    progress: Progress

    @property
    def in_place(self) -> bool:
        return self.run.resolve() == self.directory.resolve()


def find_resume(request: str, resolved: ResolvedConfig, say: Callable[[str], None]) -> Resume | None:
    """What `--resume auto`, `--resume never` or `--resume PATH` means; None is a new run.

    `auto` looks into run_dir, or, where that is empty, at the newest unfinished runs/NAME-*. PATH is a run's directory or one of its
    checkpoints; another run_dir on the command line branches off. Raises InputError where PATH holds no checkpoint that is whole.
    """
    config, name = resolved.config, resolved.name
    if request == "never":
        return None
    if request == "auto":
        run = Path(config.run_dir) if config.run_dir else _newest_unfinished(name)
        checkpoint = newest_valid(run / "checkpoints", say) if run else None
        if checkpoint is not None:
            return _resume(run, run, checkpoint)
        if config.run_dir and steps(run / "checkpoints"):
            raise InputError(f"--resume auto: no checkpoint in {run} is whole. Give another run_dir to start anew")
        if config.run_dir and (run / "lock").exists():
            say(f"{run} ended before its first checkpoint: it starts over")
            return Resume(run, run, None, Progress())
        say("nothing to resume: a new run starts")
        return None
    path = Path(request)
    if re.fullmatch(r"step_\d+|latest|best", path.name):
        checkpoint, run = path.resolve(), path.resolve().parent.parent
        wrong = flaw(checkpoint) if checkpoint.is_dir() else "there is no such directory"
        if wrong is not None:
            raise InputError(f"--resume {request} cannot be used: {wrong}")
    else:
        run, checkpoint = path, newest_valid(path / "checkpoints", say)
        if checkpoint is None:
            raise InputError(f"--resume {request}: no checkpoint there is whole. It can be a run's directory, or one of its checkpoints")
    directory = Path(config.run_dir) if resolved.origins["run_dir"] == "command line" else run
    resume = _resume(directory, run, checkpoint)
    later = [found for step, found in steps(run / "checkpoints") if step > resume.progress.step and resume.in_place]
    whole = next((found.name for found in later if flaw(found) is None), None)
    if whole is not None:
        raise InputError(f"--resume {request}: the run has gone on to {whole}. Give another run_dir to branch off, or remove that")
    return resume


def newest_valid(directory: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint below `directory` whose files are what its manifest lists; says what is wrong with newer ones."""
    for _, path in steps(directory):
        wrong = flaw(path)
        if wrong is None:
            pointer = directory / "latest"
            if not pointer.exists() or pointer.resolve() != path.resolve():
                say(f"{pointer} does not point to {path.name}, the newest that is whole: that one is used")
            return path
        say(f"checkpoint {path} is not used: {wrong}")
    return None


def require_same_run(found: Resume, config: Config | PretrainConfig, allowed: bool, say: Callable[[str], None]) -> None:
    """Says which settings changed. Raises InputError where one changes the algorithm, unless `allowed`, or where nothing is left to do."""
    earlier = dict(_flat(load_config(str(found.checkpoint / "trainer" / "config.yaml"), [], type(config)).config))
    changes = {key: (earlier[key], value) for key, value in _flat(config) if earlier[key] != value}
    serious = [key for key in changes if not _is_free(key)]
    lines = {key: f"{key}: {before!r} -> {after!r}" for key, (before, after) in changes.items()}
    if serious and not allowed:
        raise InputError(
            f"{found.checkpoint} was made with other settings, and these change what is computed:\n"
            + "\n".join(f"  {lines[key]}" for key in serious)
            + "\nset them back, start a new run, or insist with --allow-changes"
        )
    for line in lines.values():
        say(f"changed since {found.checkpoint.name}: {line}")
    if "tokens_per_pack" in changes:
        found.progress.tokens_per_pack = None  # what did not fit before may fit now
    if isinstance(config, Config) and config.steps < found.progress.step:
        raise InputError(f"steps={config.steps}, but {found.run} has already done {found.progress.step}")


def require_same_data(found: Resume, sets: Mapping[str, ProblemSet | Texts], allowed: bool, say: Callable[[str], None]) -> None:
    """Raises InputError, unless `allowed`, where a problem set has other content than before under the same name."""
    earlier, now = json.loads((found.checkpoint / "trainer" / "data.json").read_text()), json.loads(fingerprints(sets))
    changed = [name for name in now if earlier.get(name, now[name]) != now[name]]
    if changed and not allowed:
        raise InputError(f"{', '.join(changed)} changed since {found.checkpoint}: put it back, start a new run, or use --allow-changes")
    for name in changed:
        say(f"{name} changed since {found.checkpoint.name}")


def fingerprints(sets: Mapping[str, ProblemSet | Texts]) -> str:
    """JSON of a hash for each problem set, or set of texts."""
    return json.dumps({name: found.fingerprint() for name, found in sets.items()}, indent=1)


def _resume(directory: Path, run: Path, checkpoint: Path) -> Resume:
    return Resume(directory, run, checkpoint, Progress.from_json((checkpoint / PROGRESS).read_text()))


def _newest_unfinished(name: str) -> Path | None:
    runs = Path("runs").glob(f"{name}-{'[0-9]' * 8}-{'[0-9]' * 6}")  # when each was started
    return max((path for path in runs if not (path / "summary.json").exists()), default=None)


def _flat(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_free(key: str) -> bool:
    return key in FREE + FREE_REWARDS or (key.startswith(FREE_SECTIONS) and not key.startswith("learner.lora"))
