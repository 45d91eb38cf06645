"""Writes what results were had with: python bench/versions.py FILE. The device, Python, and every package that takes part."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ["torch", "triton", "transformers", "numpy", "accelerate", "trl", "liger-kernel", "cut-cross-entropy", "verl", "quack-kernels"]
PACKAGES += ["flash-attn", "flash-attn-4", "vllm", "pytest", "pytest-benchmark"]
OLDEST = {"torch": (2, 11), "triton": (3, 6), "transformers": (5, 17)}


def versions() -> dict[str, str | None]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def at_least(installed: str | None, major: int, minor: int) -> bool:
    return installed is not None and tuple(map(int, installed.split(".")[:2])) >= (major, minor)


def device() -> dict | None:
    if not torch.cuda.is_available():
        return None
    card, (free, total) = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info()
    known = {"name": card.name, "capability": [card.major, card.minor], "multiprocessors": card.multi_processor_count}
    return known | {"memory GiB": total / 2**30, "free GiB": free / 2**30, "L2 MiB": card.L2_cache_size / 2**20, "cuda": torch.version.cuda}


def main(path: str) -> int:
    found = versions()
    text = json.dumps({"python": platform.python_version(), "device": device(), "packages": found}, indent=1)
    Path(path).write_text(text)
    print(text)
    old = [f"{name} {found[name]}, {a}.{b} is needed" for name, (a, b) in OLDEST.items() if not at_least(found[name], a, b)]
    print("\n".join(old or ["versions: new enough"]))
    return 1 if old or not torch.cuda.is_available() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
