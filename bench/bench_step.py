"""Whole steps of fastgrpo and of TRL's GRPOTrainer side by side: generation and learning, on a CPU, the same tokens and the same updates.

    python bench/bench_step.py [--race toy|realistic] [--repeats 3] [--threads N] [--out FILE.json]

Each contestant runs in a process of its own, one after the other, in every repeat. Whoever does not sample the same tokens, or end at
the same losses, gradient norms and weights, is marked. The first step of each process warms up and is not counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from race_contestants import CONTESTANTS
from race_problem import RACES

OTHERS = {"verl": "verl", "OpenRLHF": "openrlhf", "oat": "oat", "prime-rl": "prime_rl"}  # no one of them trains on a CPU
LOSS, NORM, CHANGE = 1e-4, 1e-4, 1e-3  # relative bars of float32: losses to the largest, gradient norms, the weights' change


def run_one(name: str, race: str, written: Path, out: Path) -> None:
    """In a process of its own: leaves the trace in `out`; the first contestant writes down its responses."""
    tokens = json.loads(written.read_text()) if written.exists() else None
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    trace = CONTESTANTS[name](RACES[race], tokens)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not written.exists():
        written.write_text(json.dumps(trace.responses))
    torch.save(asdict(trace) | {"idle MiB": idle, "peak MiB": peak}, out)


def raced(names: list[str], race: str, repeats: int, threads: int) -> dict[str, dict]:
    """The line of each contestant: medians over steps and repeats, and whether its work was the first's."""
    traces, folder = {name: [] for name in names}, Path(tempfile.mkdtemp())
    for _ in range(repeats):
        for name in names:
            out = folder / "trace.pt"
            command = [
                sys.executable,
                __file__,
                "--race",
                race,
                "--one",
                name,
                "--written",
                str(folder / "written.json"),
                "--out",
                str(out),
            ]
            done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True)
            if done.returncode:
                traces[name] = (done.stderr.strip() or "no message").splitlines()[-1]
                break
            traces[name].append(torch.load(out, weights_only=True))
    if isinstance(traces[names[0]], str):
        raise SystemExit(f"{names[0]}: {traces[names[0]]}")
    first = traces[names[0]][0]
    return {name: {"failed": found} if isinstance(found, str) else line(found, first) for name, found in traces.items()}


def line(runs: list[dict], first: dict) -> dict:
    tokens = statistics.mean(sum(map(len, step)) for step in first["responses"])
    phases = {name: statistics.median(seconds for run in runs for seconds in run[name][1:]) for name in ("generation", "learning")}
    step = statistics.median(one + other for run in runs for one, other in zip(run["generation"][1:], run["learning"][1:], strict=True))
    memory = {name: max(run[name] for run in runs) for name in ("idle MiB", "peak MiB")}
    return {"step": step} | phases | {"tokens/s": tokens / step} | memory | {"same work": all(same_work(run, first) for run in runs)}


def same_work(run: dict, first: dict) -> bool:
    """Same tokens of every response, and losses, gradient norms and the change of weights within the bars."""
    largest = max(map(abs, first["losses"]))
    pairs = {name: list(zip(run[name], first[name], strict=True)) for name in ("losses", "norms")}
    return (
        run["responses"] == first["responses"]
        and all(abs(a - b) <= LOSS * largest for a, b in pairs["losses"])
        and all(abs(a - b) <= NORM * b for a, b in pairs["norms"])
        and bool((run["change"] - first["change"]).norm() <= CHANGE * first["change"].norm())
    )


def table(lines: dict[str, dict]) -> str:
    names = ("step", "generation", "learning", "tokens/s", "idle MiB", "peak MiB")
    rows = ["| contestant | " + " | ".join(names) + " | same work |", "|---" * (len(names) + 2) + "|"]
    for name, found in lines.items():
        cells = [f"failed: {found['failed']}"] if "failed" in found else [f"{found[column]:.3g}" for column in names]
        cells += [""] * (len(names) - len(cells)) + ["" if "failed" in found else "yes" if found["same work"] else "NO"]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def absent() -> str:
    missing = [name for name, package in OTHERS.items() if importlib.util.find_spec(package) is None]
    return f"not installed here: {', '.join(missing)}" if missing else ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--race", choices=RACES, default="realistic")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="the first draws the responses")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--written", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return run_one(arguments.one, arguments.race, arguments.written, arguments.out)
    lines = raced(arguments.only, arguments.race, arguments.repeats, arguments.threads)
    print(table(lines), absent(), sep="\n")
    if arguments.out:
        arguments.out.write_text(json.dumps(lines, indent=1))


@pytest.mark.parametrize("name", list(CONTESTANTS)[1:])
def test_everyone_does_the_same_work(name):
    """No times: the toy race once, by `pytest bench/`."""
    lines = raced(["fastgrpo", name], "toy", repeats=1, threads=1)
    assert all(found.get("same work") for found in lines.values()), table(lines)


if __name__ == "__main__":
    main()
