"""The responses that all three analyses share: each template at each temperature is drawn once, through the code that evaluates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.accuracy import Prediction
from fastgrpo.evaluate import evaluate
from fastgrpo.predictions import Journal, prediction_row
from fastgrpo.rewards import Grader
from fastgrpo.templates import TEMPLATES
from fastgrpo.types import Problem, Prompt, Sampling

if TYPE_CHECKING:
    from fastgrpo.rollout import Sampler

NO_LEVEL = "unknown"


@dataclass(frozen=True, slots=True)
class Protocol:
    """What all responses below one directory share. `weights` tells weights from later ones; it and `dtype` are "" for a server."""

    model: str
    weights: str
    data: str
    problem: str
    answer: str
    questions: int
    n: int
    max_new_tokens: int
    verifier: str
    seed: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Draw:
    """n graded responses to each question, by one template at one temperature; `levels` of difficulty by question."""

    template: str
    temperature: float
    predictions: Sequence[Prediction]
    levels: Mapping[str, str]

    def rows(self, columns: Sequence[dict]) -> list[dict]:
        """Rows for disk: those of an evaluation, with template, temperature and level, and the given columns beside each."""
        way = "greedy" if self.temperature == 0 else "sampled"
        return [
            prediction_row(way, prediction)
            | {"template": self.template, "temperature": self.temperature, "level": self.levels[prediction.id]}
            | more
            for prediction, more in zip(self.predictions, columns, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Source:
    """Draws responses to `problems`, below the open `directory`. `open_sampler` gives the sampler and its prompts by template: it loads
    the model, and is called only where a response is missing. `level` is the column of difficulty."""

    protocol: Protocol
    name: str
    problems: Sequence[Problem]
    level: str
    directory: Path
    open_sampler: Callable[[], tuple[Sampler, Mapping[str, Sequence[Prompt]]]]
    say: Callable[[str], None]

    def draw(self, template: str, temperature: float) -> Draw:
        """The responses, those of earlier attempts among them."""
        fixed, asked = self.protocol, TEMPLATES[template]
        sampling = Sampling(temperature, fixed.max_new_tokens, asked.stop)
        with (
            Journal(self.directory / f"{template}-t{temperature}.responses.jsonl", self.problems) as journal,
            Grader(asked.answer_form, fixed.verifier) as grader,
        ):
            wanted = len(self.problems) * fixed.n
            missing = [(p.id, j) for p in self.problems for j in range(fixed.n) if (p.id, j) not in journal.known]
            self.say(f"{template}, temperature {temperature:g}: {len(missing)} of {wanted} responses to draw")
            sampler, prompts = None, self.problems  # grading what is known needs no more than the problems
            if missing:
                sampler, rendered = self.open_sampler()
                prompts = rendered[template]
            predictions = evaluate(
                *(sampler, grader, self.name, prompts, fixed.n, sampling, fixed.seed), known=journal.known, on_response=journal.write
            )
        levels = {problem.id: str(problem.columns.get(self.level, NO_LEVEL)) for problem in self.problems}
        return Draw(template, temperature, predictions, levels)
