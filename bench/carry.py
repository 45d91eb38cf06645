"""Packages for a GPU machine that reaches no package index: downloaded here, cut into parts of a size that travels, joined there.

    python bench/carry.py pack rivals [--have FREEZE] [--out carried/rivals]   here: carried/rivals/part-0, ...; so for vllm
    python bench/carry.py unpack SITE PART ...                                 there: into SITE, to be named in PYTHONPATH

FREEZE is `pip list --format=freeze` of the other machine, whose packages stay out. The other machine is Linux on x86-64 with Python 3.12,
torch and transformers. Wheels are unpacked, not installed: no scripts, no resolving. Only the standard library is used here.
What surprises: vLLM's wheel goes without what a dense model on Hopper never calls, 104 MB instead of 304; FlashAttention 3 is left in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETS = {  # what takes part in benchmarks and tests, and what that imports; versions from constraints.txt
    "rivals": """liger-kernel cut-cross-entropy verl trl datasets dill multiprocess xxhash accelerate peft
        pydantic pydantic_core annotated-types typing-inspection typer rich shellingham pyyaml
        math-verify latex2sympy2_extended antlr4-python3-runtime sympy mpmath pylatexenc
        pytest pytest-timeout pytest-benchmark py-cpuinfo hypothesis sortedcontainers""",
    "vllm": """vllm==0.26.0 apache-tvm-ffi annotated-doc anyio blake3 cachetools cbor2 cloudpickle compressed-tensors==0.17.0 depyf==0.20.0
        astor distro einops fastapi<0.137 httpcore2 httpx2 ijson jiter lark==1.2.2 llguidance<1.8 lm-format-enforcer==0.11.3 interegular
        msgspec openai openai-harmony opentelemetry-api partial-json-parser prometheus_client prometheus-fastapi-instrumentator pybase64
        py-cpuinfo python-json-logger pyzmq sentencepiece setproctitle sniffio starlette tiktoken truststore uvloop watchfiles xgrammar
        opencv-python-headless mistral_common""",
}
# vLLM's largest files for other cards, other models or servers; it imports all of them under a guard.
LEFT_OUT = ("_vllm_fa2_C", "_moe_C", "_qutlass", "_flashmla", "vllm/vllm-rs", "third_party/deep_gemm/", "third_party/fmha_sm100/")
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)] + [
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
]
MIB = 2**20


def pack(sets: list[str], have: Path | None, out: Path, part_mib: float) -> None:
    """Fills out/part-N with pieces of wheels and, in each, the manifest of all. Says what could not be downloaded."""
    installed = {canonical(line.split("==")[0]) for line in have.read_text().split()} if have else set()
    wheels, failed = out / "wheels", []
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True, exist_ok=True)
    for requirement in dict.fromkeys(" ".join(SETS[name] for name in sets).split()):
        if canonical(re.split("[<=>]", requirement)[0]) not in installed and not download(requirement, wheels):
            failed.append(requirement)
    for wheel in wheels.glob("vllm-*.whl"):
        strip(wheel)
    manifest = cut(sorted(wheels.glob("*.whl"), key=lambda wheel: -wheel.stat().st_size), out, int(part_mib * MIB))
    parts = sorted(out.glob("part-*"))
    for part in parts:
        (part / "manifest.json").write_text(json.dumps(manifest))
        print(f"{part}: {sum(file.stat().st_size for file in part.iterdir()) / MIB:.1f} MiB, {len(list(part.iterdir())) - 1} pieces")
    print(f"{len(manifest)} wheels" + (f"; not found: {' '.join(failed)}" if failed else ""))


def download(requirement: str, folder: Path) -> bool:
    target = ["--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:", "--no-deps"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    for pins in (["-c", str(ROOT / "constraints.txt")], []):  # what was run together may have no such wheel, or the set may want another
        command = [sys.executable, "-m", "pip", "download", "-q", *target, *pins, "-d", str(folder), requirement]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return True
    return False


def strip(wheel: Path) -> None:
    """Writes a wheel anew without LEFT_OUT. Its RECORD still lists them: it is unpacked, not installed."""
    with zipfile.ZipFile(wheel) as whole:
        names = [name for name in whole.namelist() if not any(part in name for part in LEFT_OUT)]
        if len(names) == len(whole.namelist()):
            return
        with zipfile.ZipFile(wheel.with_suffix(".tmp"), "w", zipfile.ZIP_DEFLATED) as less:
            for name in names:
                less.writestr(whole.getinfo(name), whole.read(name), zipfile.ZIP_DEFLATED)
    wheel.with_suffix(".tmp").replace(wheel)


def cut(wheels: list[Path], out: Path, limit: int) -> dict[str, dict]:
    """Pieces of at most `limit` bytes, each in the first part with room; {wheel: {sha256, pieces}}."""
    for old in out.glob("part-*"):
        shutil.rmtree(old)
    room, manifest, margin = [], {}, MIB // 4  # for the manifest
    for wheel in wheels:
        content = wheel.read_bytes()
        starts = range(0, len(content), limit - margin)
        pieces = [f"{wheel.name}.{index:03d}" for index in range(len(starts))]
        manifest[wheel.name] = {"sha256": hashlib.sha256(content).hexdigest(), "pieces": pieces}
        for start, piece in zip(starts, pieces, strict=True):
            data = content[start : start + limit - margin]
            part = next((index for index, free in enumerate(room) if free >= len(data)), len(room))
            if part == len(room):
                room.append(limit - margin)
            room[part] -= len(data)
            (out / f"part-{part}").mkdir(exist_ok=True)
            (out / f"part-{part}" / piece).write_bytes(data)
    return manifest


def unpack(site: Path, parts: list[Path]) -> None:
    """Every wheel of which all pieces are there goes into `site`; the others are named. Raises SystemExit for changed bytes."""
    manifest = json.loads((parts[0] / "manifest.json").read_text())
    pieces = {piece.name: piece for part in parts for piece in part.iterdir()}
    waiting = [name for name, entry in manifest.items() if not all(piece in pieces for piece in entry["pieces"])]
    site.mkdir(parents=True, exist_ok=True)
    for name, entry in manifest.items():
        if name in waiting:
            continue
        with tempfile.TemporaryFile() as whole:
            for piece in entry["pieces"]:
                whole.write(pieces[piece].read_bytes())
            whole.seek(0)
            if hashlib.sha256(whole.read()).hexdigest() != entry["sha256"]:
                raise SystemExit(f"{name}: its pieces do not join to the bytes that were packed; carry them again")
            with zipfile.ZipFile(whole) as wheel:
                wheel.extractall(site)
    for data in site.glob("*.data"):
        for kind in ("purelib", "platlib"):
            if (data / kind).is_dir():
                shutil.copytree(data / kind, site, dirs_exist_ok=True)
        shutil.rmtree(data)
    print(f"{len(manifest) - len(waiting)} wheels in {site}" + (f"; pieces are missing of {', '.join(waiting)}" if waiting else ""))


def canonical(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    packing, unpacking = commands.add_parser("pack"), commands.add_parser("unpack")
    packing.add_argument("sets", nargs="+", choices=SETS)
    packing.add_argument("--have", type=Path)
    packing.add_argument("--out", type=Path, help="default: carried/NAMES of the sets")
    packing.add_argument("--part-mib", type=float, default=56.0, help="size of a part; the working tree travels beside it")
    unpacking.add_argument("site", type=Path)
    unpacking.add_argument("parts", nargs="+", type=Path)
    given = parser.parse_args()
    if given.command == "pack":
        pack(given.sets, given.have, given.out or ROOT / "carried" / "-".join(given.sets), given.part_mib)
    else:
        unpack(given.site, given.parts)
