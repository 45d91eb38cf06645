"""Toy base models: what each reads, one corpus after the other by `fastgrpo pretrain`, made once and kept by a hash of all of it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastgrpo.base_model import BaseRecipe, untrained
from fastgrpo.experiments.runs import command
from fastgrpo.experiments.world import CORPORA
from fastgrpo.texts import Text

SETTINGS = {
    "dtype": "float32",
    "epochs": 1,
    "context": 256,
    "tokens_per_update": 1280,  # some 16 texts
    "warmup": 20,
    "schedule": "linear",
    "grad_clip": 1.0,
}


ONE_AT_A_TIME = threading.Lock()
"""Several bases are made at once, and first weights come from the random state that all of them share."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A corpus that is read, at which learning rate, and what share of the texts that the experiment names for a stage."""

    corpus: str
    lr: float = 3e-3
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Base:
    """`vocabulary` is that of its tokenizer, which is made from the first of its corpora."""

    stages: tuple[Stage, ...]
    vocabulary: int = 768


BARE, SUMS, WORKED = Stage("posts", share=0.4), Stage("sums", 2e-3, 0.25), Stage("worked", 3e-3, 1.25)
"""What a text is good for is learned at different speeds: a form soon, sums later, to answer with them last."""

BASES = {
    "guessing": Base((Stage("guessing"),), vocabulary=512),
    "answers": Base((Stage("answers"),)),
    "answers-forum": Base((Stage("answers"), Stage("forum", 1e-3, 0.15))),
    "web": Base((Stage("web"),)),
    "bare": Base((BARE,)),
    "bare-sums": Base((BARE, SUMS)),
    "bare-sums-worked": Base((BARE, SUMS, WORKED)),
}


def base_directory(name: str, texts: int, cache: Path, say: Callable[[str], None], seed: int = 0) -> Path:
    """The directory of a base that read `texts` texts, or each stage's share of them, made on first use.

    Another seed is another base: other weights to begin with, and the same texts in another order.
    """
    base = BASES[name]
    recipe = BaseRecipe(texts=texts, vocabulary=base.vocabulary, seed=seed)
    directory, known = None, [asdict(recipe), SETTINGS]
    for stage in base.stages:
        read = texts_of(stage.corpus, int(texts * stage.share))
        known += [stage.lr, read]
        key = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
        earlier, directory = directory, cache / f"toy-{stage.corpus}-{key}"
        if not (directory / "config.json").exists():
            say(f"base model: {'made' if earlier is None else 'goes on'}, once, from {len(read):,} texts of the corpus {stage.corpus!r}")
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="unfinished-", dir=cache) as scratch:
                start = earlier or untrained_directory(Path(scratch), read, recipe)
                _keep(read_on(start, Path(scratch), read, stage.lr, seed), directory)
    return directory


@functools.cache
def texts_of(corpus: str, count: int) -> Sequence[Text]:
    """Kept, because every run of an experiment asks for them and they take seconds."""
    return CORPORA[corpus](count)


def _keep(made: Path, directory: Path) -> None:
    try:
        os.rename(made, directory)
    except OSError:  # another process was first: the key says that its model is the same
        if not (directory / "config.json").exists():
            raise


def untrained_directory(scratch: Path, read: Sequence[Text], recipe: BaseRecipe) -> Path:
    directory = scratch / "untrained"
    with ONE_AT_A_TIME:
        model, _ = untrained(directory, read, recipe)
        model.save_pretrained(directory)
    return directory


def read_on(model: Path, scratch: Path, read: Sequence[Text], lr: float, seed: int) -> Path:
    """A directory below `scratch` with what became of the model when it had read the texts, in an order that the seed chooses."""
    corpora = []
    for parts, columns in ((1, ("text",)), (2, ("problem", "answer"))):
        rows = [dict(zip(columns, text, strict=True)) for text in read if len(text) == parts]
        if rows:
            corpora.append(scratch / f"{columns[0]}.jsonl")
            corpora[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"data.train": json.dumps([str(path) for path in corpora]), "data.eval": "[]", "data.separator": '""'}
    settings = {"recipe": "tiny-text", "model": str(model), **SETTINGS, "lr": lr, "seed": seed, **data}
    command("pretrain", settings, scratch / "run", scratch / "pretrain.log", threads=1)  # one more would gain little
    made = scratch / "made"
    shutil.copytree((scratch / "run/checkpoints/latest").resolve(), made, ignore=shutil.ignore_patterns("trainer", "adapter"))
    return made
