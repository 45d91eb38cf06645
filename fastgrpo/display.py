"""What a person sees of a run: a live table on a terminal, one line a step elsewhere, and a closing table in both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fastgrpo.accuracy import average, pooled

if TYPE_CHECKING:
    from fastgrpo.benchmark import Outcome

SHOWN = 12  # steps that the live table keeps in sight
COLUMNS = ("step", "reward", "length", "cut", "silent", "entropy", "clip", "|grad|", "tok/s", "sec")
TEXT_COLUMNS = ("step", "loss", "tokens", "lr", "|grad|", "tok/s", "sec")


@dataclass(frozen=True, slots=True)
class Look:
    """How the steps of a command are shown: `cells` of a row below `columns`, `measured` as lines."""

    command: str
    columns: tuple[str, ...]
    cells: Callable[[dict], tuple[str, ...]]
    measured: Callable[[dict], list[str]]


class PlainDisplay:
    """Implements run.Observer with lines of text."""

    def __init__(self, console: Console, look: Look):
        self.console, self.look = console, look
        self.steps = 0
        self.first_step_at: float | None = None
        self.steps_before: int | None = None  # of an earlier process, where the run was resumed

    def begin(self, name: str, steps: int) -> None:
        self.steps = steps
        self.console.print(f"fastgrpo {self.look.command} {name}: {steps} steps", highlight=False)

    def phase(self, name: str) -> None:
        if self.first_step_at is None and name in ("sample", "learn"):  # what a step begins with
            self.first_step_at = time.monotonic()

    def row(self, row: dict) -> None:
        if "evaluation" in row:
            for line in self.look.measured(row):
                self.note(line)
        else:
            cells = zip(self.look.columns, self.look.cells(row), strict=True)
            self.note("  ".join(f"{name} {cell}" for name, cell in cells) + f"  left {self.time_left(row['step'])}")

    def note(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def end(self) -> None:
        pass

    def time_left(self, step: int) -> str:
        """Seconds to go at the pace so far."""
        if self.first_step_at is None:
            return "?"
        if self.steps_before is None:
            self.steps_before = step - 1
        left = (time.monotonic() - self.first_step_at) / (step - self.steps_before) * (self.steps - step)
        return f"{int(left // 60)}:{int(left % 60):02d}"


class NoDisplay:
    """Implements run.Observer for ranks whose terminal nobody sees."""

    def begin(self, name: str, steps: int) -> None: ...

    def phase(self, name: str) -> None: ...

    def row(self, row: dict) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


class LiveDisplay(PlainDisplay):
    """The same on a terminal: the latest steps in a table that is redrawn in place, with the current phase below it."""

    def __init__(self, console: Console, look: Look):
        super().__init__(console, look)
        self.rows: list[dict] = []
        self.current = ""
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def begin(self, name: str, steps: int) -> None:
        super().begin(name, steps)
        self.live.start()

    def phase(self, name: str) -> None:
        super().phase(name)
        self.current = name

    def row(self, row: dict) -> None:
        if "evaluation" in row:
            super().row(row)
        else:
            self.rows = [*self.rows, row][-SHOWN:]

    def end(self) -> None:
        self.live.stop()
        if self.rows:
            self.console.print(steps_table(self.rows, self.look))

    def _render(self):
        if not self.rows:
            return Text(f"{self.current} ...")
        step = self.rows[-1]["step"]
        return Group(steps_table(self.rows, self.look), Text(f"step {step} of {self.steps}, {self.current}, {self.time_left(step)} left"))


def make_display(look: Look, console: Console) -> PlainDisplay:
    return LiveDisplay(console, look) if console.is_terminal else PlainDisplay(console, look)


def step_cells(row: dict) -> tuple[str, ...]:
    """One step in words that fit 80 columns: shares in %, tokens/s of sampling and learning together, seconds of the step."""
    updates, seconds = row["updates"], sum(row["seconds"].values())
    clipped = sum(update["clip_low"] + update["clip_high"] for update in updates) / len(updates)
    return (
        str(row["step"]),
        "none" if row["reward"] is None else f"{row['reward']:.3f}",
        f"{row['length']:.0f}",
        f"{row['truncated']:.0%}",
        f"{row['zero_signal']:.0%}",
        f"{sum(update['entropy'] for update in updates) / len(updates):.2f}",
        f"{clipped:.1%}",
        f"{sum(update['grad_norm'] for update in updates) / len(updates):.3f}",
        f"{row['response_tokens'] / max(seconds, 1e-9):.0f}",
        f"{seconds:.1f}",
    )


def text_cells(row: dict) -> tuple[str, ...]:
    """One update of pretraining: loss in nats per token, predicted tokens, seconds."""
    return (
        str(row["step"]),
        "none" if row["loss"] is None else f"{row['loss']:.4f}",
        str(row["tokens"]),
        f"{row['lr']:.2e}",
        f"{row['grad_norm']:.3f}",
        str(row["tokens_per_second"]),
        f"{sum(row['seconds'].values()):.1f}",
    )


def steps_table(rows: list[dict], look: Look) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in look.columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*look.cells(row))
    return table


def evaluation_lines(row: dict) -> list[str]:
    """One line a problem set, and one when a new best checkpoint was kept."""
    names = dict.fromkeys(name for sets in row["evaluation"].values() for name in sets)
    lines = []
    for name in names:
        ways = {way: sets[name] for way, sets in row["evaluation"].items()}
        shares = ", ".join(f"{way} {found['accuracy']:.1%}" for way, found in ways.items())
        lines.append(f"step {row['step']}: {shares} right of {next(iter(ways.values()))['problems']} in {name}")
    if row.get("best"):
        lines.append(f"step {row['step']}: the best checkpoint so far, {row['metric']:.1%}")
    return lines


def loss_lines(row: dict) -> list[str]:
    """One line for each source of texts held out."""
    return [f"step {row['step']}: loss {found['loss']:.4f} nats per token on {name}" for name, found in row["evaluation"].items()]


TRAINING = Look("train", COLUMNS, step_cells, evaluation_lines)
PRETRAINING = Look("pretrain", TEXT_COLUMNS, text_cells, loss_lines)


def closing_losses(summary: dict) -> str:
    """Loss on texts held out before and after, and what was read."""
    lines = [f"{summary['steps']} updates, {summary['tokens']:,} tokens in {summary['seconds']:.0f} s"]
    for name, before in summary["loss_before"].items():
        lines.append(f"loss on {name}: {before:.4f} before, {summary['loss_after'][name]:.4f} after, nats per token")
    return "\n".join(lines)


def closing_table(summary: dict) -> Table | str:
    """Held-out accuracy before and after, or only the time where nothing was held out."""
    ways = [(way, key) for way, key in (("sampled", "accuracy"), ("greedy", "greedy")) if summary[key + "_before"] is not None]
    if not ways:
        return f"{summary['steps']} steps in {summary['seconds']:.0f} s, no held-out problems"
    table = Table(title=f"{summary['steps']} steps in {summary['seconds']:.0f} s", title_justify="left")
    for name in ("held-out accuracy", "before", "after"):
        table.add_column(name, justify="left" if name.startswith("held") else "right")
    for way, key in ways:
        table.add_row(way, f"{summary[key + '_before']:.1%}", f"{summary[key + '_after']:.1%}")
    return table


def outcome_table(outcome: Outcome) -> Table:
    """Accuracies in % with 95 % intervals, beside the published ones where there are any; mean and longest response in tokens."""
    protocol, published = outcome.protocol, outcome.published
    way = "greedy" if protocol.temperature == 0 else f"temperature {protocol.temperature:g}"
    title = f"{protocol.model}, template {protocol.template}, {way}, {protocol.max_new_tokens} tokens, {protocol.verifier}"
    several = protocol.n > 1
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    head = ["set", "n", f"avg@{protocol.n}" if several else "right", "95 %"] + [f"pass@{protocol.n}"] * several
    for name in head + ["paper"] * bool(published) + ["length", "max", "cut", "formed", "odd"]:
        left = name == "set"
        table.add_column(name, justify="left" if left else "right", no_wrap=True, min_width=None if left else len(name))
    for name, found in outcome.evaluations.items():
        cells = [name, str(found.problems), _percent(found.accuracy), f"{_percent(found.low)}-{_percent(found.high)}"]
        cells += [_percent(found.pass_at[protocol.n])] * several
        cells += [_percent(published[name]) if name in published else ""] * bool(published)
        odd = sum(count for status, count in found.grading.items() if status != "ok")
        table.add_row(*cells, f"{found.length:.0f}", str(found.length_max), _percent(found.truncated), _percent(found.formatted), str(odd))
    problems = sum(found.problems for found in outcome.evaluations.values())
    total = [_percent(sum(published.values()) / len(published))] if set(published) == set(outcome.evaluations) else []
    table.add_row("average", "", _percent(average(outcome.evaluations)), "", *[""] * several, *total)
    table.add_row("pooled", str(problems), _percent(pooled(outcome.evaluations)))
    table.caption = "right, cut and formed in %; odd: responses that the grader could not read or gave up on"
    return table


def harmless(text: str) -> str:
    """Text of a model for a terminal: control characters, which could move the cursor or worse, are written out."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
