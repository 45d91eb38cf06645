"""Where a model comes from: the built-in base model, a directory, a name on the Hub, a run's checkpoint, or a server's URL."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastgrpo.base_model import base_model_directory
from fastgrpo.errors import InputError, SetupError
from fastgrpo.hub import offline_without_hub

BUILTIN_MODEL = "builtin:base"
MODEL_FILES = {"config.json": ["config.json"], "weights": ["*.safetensors"], "a tokenizer": ["tokenizer*", "vocab*"]}
PICKLED = ("*.bin", "*.pt", "*.pth")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be evaluated: a server at `url`, or the model at `path` (also a hub id), of the run `run` if it is one's checkpoint."""

    path: str = ""
    url: str = ""
    run: Path | None = None


def find_subject(given: str, step: str) -> Subject:
    """A URL, a run directory (its checkpoint `step`: best, latest or a number; "" is the best if there is one) or a model.

    Raises InputError for what is none of them, and for a checkpoint that does not exist.
    """
    if given.startswith(("http://", "https://")):
        if urlsplit(given).username is not None or urlsplit(given).password is not None:
            raise InputError("a server's URL cannot hold a name or password: put its key into the environment variable OPENAI_API_KEY")
        if step:
            raise InputError(f"--step {step} needs a run directory, and {given} is a server, which knows one model")
        return Subject(url=given)
    directory = Path(given)
    if not (directory / "config.yaml").is_file() or not (directory / "checkpoints").is_dir():
        if step:
            raise InputError(f"--step {step} needs a run directory, and {given} is none")
        require_model(given)
        return Subject(path=given)
    names = [step] if step in ("best", "latest") else [f"step_{step}"] if step else ["best", "latest"]
    for name in names:
        if (directory / "checkpoints" / name / "config.json").is_file():
            return Subject(path=str((directory / "checkpoints" / name).resolve()), run=directory)
    there = ", ".join(sorted(path.name for path in (directory / "checkpoints").iterdir())) or "none"
    raise InputError(f"{given} has no checkpoint {' or '.join(names)}; it has {there}")


def model_directory(model: str, say: Callable[[str], None]) -> str:
    """The path or hub id to load; the built-in base model is made, or taken from the cache."""
    return str(base_model_directory(cache_directory(), say)) if model == BUILTIN_MODEL else model


def weights_stamp(model: str) -> str:
    """Tells whether the weights of a model directory are those of an earlier time, by names, sizes and dates; "" for a name on the Hub."""
    files = sorted(path for pattern in MODEL_FILES["weights"] for path in Path(model).glob(pattern))
    stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.blake2b(repr(stamps).encode(), digest_size=6).hexdigest() if files else ""


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
        pickled = [path.name for pattern in PICKLED for path in Path(model).glob(pattern)]
        if pickled and not any(Path(model).glob("*.safetensors")):
            raise InputError(
                f"model={model} holds its weights only as {pickled[0]}, a format that can run code when it is read; where you trust it, "
                f'convert it once: python -c "from transformers import AutoModelForCausalLM as M; '
                f"M.from_pretrained('{model}', dtype='auto').save_pretrained('{model}')\""
            )
        missing = [part for part, patterns in MODEL_FILES.items() if not any(any(Path(model).glob(pattern)) for pattern in patterns)]
        if missing:
            raise InputError(f"model={model} is not a Hugging Face model directory: it lacks {', '.join(missing)}; {allowed}")
    elif not HUB_ID.fullmatch(model):
        raise InputError(f"model={model}: no such directory; {allowed}")
    else:
        offline_without_hub()
