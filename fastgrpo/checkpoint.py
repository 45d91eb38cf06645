"""Checkpoints in the Hugging Face layout: `from_pretrained` and vLLM load a step's directory as it is.

A directory appears under its final name only when it is complete; `latest` points to the newest.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def save_policy(checkpoints: Path, step: int, model, tokenizer) -> Path:
    """Writes step_N (weights as safetensors, config, tokenizer) below `checkpoints` and returns it."""
    final, unfinished = checkpoints / f"step_{step}", checkpoints / f"step_{step}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    os.replace(unfinished, final)
    pointer = checkpoints / "latest.tmp"
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(final.name)
    os.replace(pointer, checkpoints / "latest")
    return final
