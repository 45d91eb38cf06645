"""What the names of the toy world stand for in settings: `toy:BASE` and `toy:BASE/SEED` are base models, `toy:SET@SPLIT` a file."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from fastgrpo.experiments.bases import base_directory
from fastgrpo.experiments.definition import Settings
from fastgrpo.experiments.world import QUESTIONS

NAME = re.compile(r"toy:(?P<name>[\w-]+)(@(?P<split>train|heldout)|/(?P<seed>\d+))?")
SIZES = {"train": 4096, "heldout": 512}


def placed(text: str, texts: int, cache: Path, say: Callable[[str], None]) -> str:
    """`text` with each name as the path of what it stands for, below `cache`, made where it is not there. `texts`: what a base reads."""

    def place(found: re.Match) -> str:
        if found["split"]:
            return str(question_file(found["name"], found["split"], cache))
        return str(base_directory(found["name"], texts, cache, say, int(found["seed"] or 0)))

    return NAME.sub(place, text)


def bases_named(settings: Settings) -> list[str]:
    """The names of base models in settings, as they stand there."""
    return [found[0] for value in settings.values() if isinstance(value, str) for found in NAME.finditer(value) if not found["split"]]


def placed_settings(settings: Settings, texts: int, cache: Path, say: Callable[[str], None]) -> Settings:
    return {key: placed(value, texts, cache, say) if isinstance(value, str) else value for key, value in settings.items()}


def question_file(name: str, split: str, cache: Path) -> Path:
    """Its name holds a hash of its content, which is always the same for one version of the toy world."""
    text = rows_of(name, split)
    path = cache / f"toy-{name}-{split}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text)
        unfinished.replace(path)
    return path


@functools.cache
def rows_of(name: str, split: str) -> str:
    """Kept, because every run of an experiment asks for them and they take seconds."""
    drawn = islice(QUESTIONS[name](split), SIZES[split])
    return "".join(json.dumps({"problem": question, "answer": answer}) + "\n" for question, answer in drawn)
