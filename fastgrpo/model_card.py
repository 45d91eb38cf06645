"""The model card of an exported checkpoint: what it is, how to ask it, what was measured, by which settings.

Nothing is said that the run did not leave on its disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from fastgrpo.config import Config, ResolvedConfig
from fastgrpo.lines import read_lines
from fastgrpo.settings_file import yaml_line
from fastgrpo.templates import TEMPLATES

LOSSES = {"dr_grpo": "Dr. GRPO", "grpo": "GRPO", "grpo_no_std": "GRPO without std", "grpo_no_length": "GRPO without length norm"}
HEAD = ("set", "problems", "way", "right", "95 % interval", "before training")
METRICS = ("reward", "length", "truncated", "zero_signal", "loss", "tokens_per_second")


@dataclass(frozen=True, slots=True)
class Exported:
    """A checkpoint: of which run, after how many steps, with which settings, in which dtype it is given away."""

    run: Path
    checkpoint: Path
    step: int
    resolved: ResolvedConfig
    dtype: str
    version: str


def model_card(exported: Exported, title: str) -> str:
    """README.md, with the header that the Hub reads."""
    config = exported.resolved.config
    trained = isinstance(config, Config)
    method = LOSSES.get(config.loss.type, config.loss.type) if trained else "pretraining on text"
    rows = read_lines(exported.run / "metrics.jsonl")
    base = shortened(config.model)
    lines = [*header(config), "", f"# {title}", ""]
    lines += [
        f"{base}, trained by {method} with fastgrpo {exported.version}: the weights after step {exported.step}, in {exported.dtype}.",
        "",
    ]
    if trained:
        lines += [*how_to_ask(config), ""]
    lines += ["## Results", "", *results(exported, rows), ""]
    if metrics := last_metrics(exported.step, rows):
        lines += ["## Training", "", *metrics, ""]
    lines += ["## Settings", "", "```yaml", *settings(exported.resolved), "```"]
    return "\n".join(lines) + "\n"


def header(config) -> list[str]:
    """The base model only where it has a name on the Hub. No licence: that is for who publishes to say."""
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", config.model) and not Path(config.model).exists()
    tags = ["fastgrpo", *["reinforcement-learning"] * isinstance(config, Config)]
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", *[f"base_model: {config.model}"] * bool(named)]
    return [*lines, "tags:", *(f"- {tag}" for tag in tags), "---"]


def how_to_ask(config: Config) -> list[str]:
    template = TEMPLATES[config.template]
    text = template.text if "{question}" in template.text else ""
    stop = f", ended by {' or '.join(f'`{text}`' for text in template.stop)}" if template.stop else ""
    form = "the last `\\boxed{}`" if template.answer_form == "boxed" else "the answer tags"
    return [
        "## How to ask it",
        "",
        f"The prompt is one string, to which no special token is added (template `{config.template}`); the answer is in {form}{stop}:",
        "",
        "```python",
        f"prompt = {text!r}.replace({'{question}'!r}, question)",
        "ids = tokenizer(prompt, add_special_tokens=False, return_tensors='pt')",
        "```",
    ]


def results(exported: Exported, rows: Sequence[Mapping]) -> list[str]:
    """What the run measured of this step, and what `fastgrpo eval` measured of this checkpoint."""
    evaluations = {row["step"]: row["evaluation"] for row in rows if "evaluation" in row}
    now, before = evaluations.get(exported.step), evaluations.get(0, {})
    lines = []
    if now and isinstance(exported.resolved.config, Config):
        config = exported.resolved.config
        lines += [f"Measured by the run itself in {config.dtype}, at most {config.max_new_tokens} tokens, {config.eval.verifier}:", ""]
        table = [
            accuracy_cells(name, way, found, before.get(way, {}).get(name)) for way, sets in now.items() for name, found in sets.items()
        ]
        lines += as_table(HEAD, table)
        if config.checkpoint.best != "none":
            lines += ["", f"The run kept the checkpoint with the highest {config.checkpoint.best} on these sets, which flatters that one."]
    elif now:
        cells = [(name, f"{found['loss']:.4f}", f"{before[name]['loss']:.4f}" if name in before else "") for name, found in now.items()]
        lines += as_table(("texts", "loss, nats per token", "before training"), cells)
    for path, found in stand_alone(exported):
        protocol = found["protocol"]
        way = "greedy" if protocol["temperature"] == 0 else f"temperature {protocol['temperature']:g}, {protocol['n']} responses"
        lines += [
            "",
            f"By `fastgrpo eval` ({path.parent.name}): template {protocol['template']}, at most {protocol['max_new_tokens']} tokens,",
        ]
        lines += [f"{protocol['verifier']}{', truncated answers graded' if protocol['keep_truncated'] else ''}:", ""]
        lines += as_table(HEAD[:-1], [accuracy_cells(name, way, one, None)[:-1] for name, one in found["sets"].items()])
    return lines or ["Nothing was measured of this step."]


def stand_alone(exported: Exported) -> Iterator[tuple[Path, dict]]:
    for path in sorted((exported.run / "evals").glob("*/results.json")):
        found = json.loads(path.read_text())
        if Path(found["protocol"]["model"]).resolve() == exported.checkpoint.resolve():
            yield path, found


def accuracy_cells(name: str, way: str, found: Mapping, before: Mapping | None) -> tuple[str, ...]:
    interval = f"{100 * found['low']:.1f} - {100 * found['high']:.1f} %"
    earlier = f"{100 * before['accuracy']:.1f} %" if before else ""
    return shortened(name), str(found["problems"]), way, f"{100 * found['accuracy']:.1f} %", interval, earlier


def last_metrics(step: int, rows: Sequence[Mapping]) -> list[str]:
    """The first and this step's numbers, each over that step's own responses."""
    steps = [row for row in rows if "evaluation" not in row and row["step"] <= step]
    if not steps or steps[-1]["step"] != step:
        return []
    first, last = steps[0], steps[-1]
    names = [name for name in METRICS if isinstance(last.get(name), (int, float)) and isinstance(first.get(name), (int, float))]
    return as_table(
        ("metric", f"step {first['step']}", f"step {step}"), [(name, f"{first[name]:.4g}", f"{last[name]:.4g}") for name in names]
    )


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def settings(resolved: ResolvedConfig) -> list[str]:
    """Every setting, but not where files lie on the machine that it was trained on."""
    values = {key: value for key, value in resolved.values().items() if key not in ("run_dir", "log.trackers")}
    return [
        yaml_line(key, tuple(shortened(part) for part in value) if isinstance(value, tuple) else shortened(value))
        for key, value in values.items()
    ]


def shortened(value: object) -> object:
    """The name alone of a path that starts at the root."""
    return PurePath(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value
