"""Toy base models: made by `fastgrpo pretrain` from a corpus of the toy world, once, and kept by a hash of corpus and settings."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from fastgrpo.base_model import BaseRecipe, untrained
from fastgrpo.experiments.runs import command
from fastgrpo.experiments.world import CORPORA, Text

SETTINGS = {
    "dtype": "float32",
    "epochs": 1,
    "context": 256,
    "tokens_per_update": 1280,  # some 16 texts
    "lr": 3e-3,
    "warmup": 20,
    "schedule": "linear",
    "grad_clip": 1.0,
}


def base_directory(corpus: str, texts: int, cache: Path, say: Callable[[str], None]) -> Path:
    """The directory of the base that read `texts` texts of a corpus, made on first use, in about a minute for 16,000 texts."""
    recipe, read = BaseRecipe(texts=texts), CORPORA[corpus](texts)
    key = hashlib.sha256(json.dumps([asdict(recipe), SETTINGS, read]).encode()).hexdigest()[:16]
    directory = cache / f"toy-{corpus}-{key}"
    if not (directory / "config.json").exists():
        say(f"base model: made once from {texts:,} texts of the corpus {corpus!r}")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=cache) as scratch:
            made = make_base(Path(scratch), read, recipe)
            try:
                os.rename(made, directory)
            except OSError:  # another process was first: the key says that its model is the same
                if not (directory / "config.json").exists():
                    raise
    return directory


def make_base(scratch: Path, read: list[Text], recipe: BaseRecipe) -> Path:
    """A directory below `scratch` with the model that read the texts."""
    model, _ = untrained(scratch / "untrained", read, recipe)
    model.save_pretrained(scratch / "untrained")
    corpus = scratch / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"problem": question, "answer": answer}) + "\n" for question, answer in read))
    data = {"data.train": str(corpus), "data.eval": "[]", "data.separator": '""'}
    settings = {"recipe": "tiny-text", "model": str(scratch / "untrained"), **SETTINGS, **data}
    command("pretrain", settings, scratch / "run", scratch / "pretrain.log", os.cpu_count() or 1)
    made = scratch / "made"
    shutil.copytree((scratch / "run/checkpoints/latest").resolve(), made, ignore=shutil.ignore_patterns("trainer", "adapter"))
    return made
