"""A checkpoint made into a model to give away: its policy in the Hugging Face layout, a model card, and nothing of the trainer.

The directory appears whole or not at all, and what happens on the way to the Hub cannot take it back.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.config_kind import load_any
from fastgrpo.errors import InputError, SetupError
from fastgrpo.hub import offline_without_hub
from fastgrpo.manifest import flaw, rights_of_files
from fastgrpo.model_card import Exported, model_card
from fastgrpo.model_source import find_subject

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("float32", "bfloat16", "float16")


def export(given: str, out: Path, dtype: str = "") -> Exported:
    """Writes the policy of RUN, RUN@best, RUN@latest or RUN@STEP into the new directory `out`; `dtype` "" leaves it as it is.

    Raises InputError for what is no run, a checkpoint that is not whole, a directory in use, and SetupError where nothing can be written.
    """
    if dtype and dtype not in DTYPES:
        raise InputError(f"--dtype {dtype!r} does not exist; it can be {', '.join(DTYPES)}")
    require_free(out)
    run, step = split(given)
    subject = find_subject(run, step)
    if subject.run is None:
        raise InputError(f"{given} is no run: give the directory of a run, and after @ which checkpoint: best, latest or a number")
    checkpoint = Path(subject.path)
    if (wrong := flaw(checkpoint)) is not None:
        raise InputError(f"{checkpoint} cannot be exported: {wrong}")
    resolved = load_any(str(checkpoint / "trainer"))
    step_done = json.loads((checkpoint / "trainer" / "progress.json").read_text())["step"]
    unfinished = out.with_name(out.name + ".tmp")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        stored = copy_policy(checkpoint, unfinished, dtype)
        exported = Exported(subject.run, checkpoint, step_done, resolved, stored, version("fastgrpo"))
        (unfinished / "README.md").write_text(model_card(exported, out.resolve().name), encoding="utf-8")
        if out.exists():
            out.rmdir()
        os.replace(unfinished, out)
    except OSError as error:
        raise SetupError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return exported


def require_free(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} already holds files: name a new directory, or empty it")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: name a new directory")


def split(given: str) -> tuple[str, str]:
    """A run and its checkpoint; a directory's own @ is part of its name."""
    run, at, step = given.rpartition("@")
    return (given, "") if not at or Path(given).is_dir() else (run, step)


def copy_policy(checkpoint: Path, into: Path, dtype: str) -> str:
    """Copies the files of the policy, with weights of `dtype`; returns the dtype that they have then."""
    for path in sorted(path for path in checkpoint.iterdir() if path.is_file()):
        if dtype and path.suffix == ".safetensors":
            convert(path, into / path.name, dtype)
        else:
            shutil.copyfile(path, into / path.name)
    config = json.loads((into / "config.json").read_text())
    index = into / "model.safetensors.index.json"
    if dtype:
        config = {name: value for name, value in config.items() if name != "torch_dtype"} | {"dtype": dtype}
        (into / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if index.exists():
            listed = json.loads(index.read_text())
            listed.setdefault("metadata", {})["total_size"] = sum(path.stat().st_size for path in into.glob("*.safetensors"))
            index.write_text(json.dumps(listed, indent=2) + "\n")
    return config.get("dtype") or config.get("torch_dtype") or "an unsaid dtype"


def convert(source: Path, target: Path, dtype: str) -> None:
    """One file of weights, rounded to `dtype`. Raises InputError where a weight is beyond its range."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            tensor = file.get_tensor(name)
            tensors[name] = tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
            if not tensors[name].isfinite().all():
                raise InputError(f"--dtype {dtype}: {name} has weights beyond its range; take bfloat16 or float32")
    save_file(tensors, target, metadata)
    target.chmod(rights_of_files())


def require_token() -> None:
    """Raises SetupError where nothing could be pushed: said before any work."""
    if not os.environ.get("HF_TOKEN"):
        raise SetupError("--push needs a token of the Hub that may write: put it into the environment variable HF_TOKEN")


def push(out: Path, name: str, public: bool) -> str:
    """Uploads the exported directory as the model ORG/NAME; returns its address. Raises SetupError, and `out` stays."""
    offline_without_hub()
    from huggingface_hub import HfApi

    token = os.environ["HF_TOKEN"]
    try:
        api = HfApi(token=token)
        address = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=out, commit_message="Export by fastgrpo")
    except Exception as error:  # of the network, of the Hub, of names
        said = " ".join(str(error).replace(token, "(the token)").split())[:400]
        raise SetupError(
            f"{out} was exported, but pushing it to {name} failed ({type(error).__name__}: {said}). Try again: hf upload {name} {out}"
        ) from error
    return str(address)
