"""What an arm can be: a command of fastgrpo, how its settings are written for it, and how to tell that it is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fastgrpo.analyze.program import ANALYSES
from fastgrpo.experiments.definition import Kind, Settings


@dataclass(frozen=True, slots=True)
class Command:
    """`first` is the setting that is the command's first word, `place` the one that names its directory; the others are --options, or
    else key=value. `resume` are the words that make it go on where it stopped; those with options need none."""

    first: str
    place: str
    options: bool
    resume: tuple[str, ...] = ()


COMMANDS: dict[Kind, Command] = {
    "train": Command("recipe", "run_dir", False, ("--resume", "auto")),
    "pretrain": Command("recipe", "run_dir", False, ("--resume", "auto")),
    "eval": Command("model", "out", True),
    "analyze": Command("what", "out", True),
}


def arguments(kind: Kind, settings: Settings) -> list[str]:
    """After `fastgrpo KIND`: its first word, and the other settings as the command reads them."""
    command, words = COMMANDS[kind], []
    for key, value in settings.items():
        if key == command.first:
            continue
        if not command.options:
            words.append(f"{key}={json.dumps(value) if isinstance(value, bool) else value}")
        elif value is True:
            words.append(option(key))
        elif value is not False:
            words += [option(key), str(value)]
    return [str(settings[command.first]), *words]


def option(key: str) -> str:
    return "-n" if key == "n" else f"--{key.replace('_', '-')}"


def finished(kind: Kind, settings: Settings, directory: Path) -> bool:
    """Whether everything that was asked for is there."""
    path = directory / ("results.json" if kind == "eval" else "summary.json")
    if not path.exists():
        return False
    if kind == "analyze":  # its summary grows analysis by analysis
        return set(json.loads(path.read_text())) >= set(ANALYSES if settings["what"] == "all" else [settings["what"]])
    return True
