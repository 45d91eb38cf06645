"""Problem sets known by name: where each is on the Hub, which columns hold question and answer, and how many rows to expect.

Names, columns and counts come from the publishers' pages and code. A preset says everything about its set, so data.problem and
data.answer do not touch it; a row count that differs is reported when it is loaded, since a publisher may change a set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def as_published(answer: object) -> object:
    """The whole column is the answer."""
    return answer


def after_hashes(answer: object) -> object:
    """What follows the last `####`, where GSM8K puts the result of a worked solution. Raises ValueError without one."""
    _solution, mark, result = str(answer).rpartition("####")
    if not mark:
        raise ValueError("no #### before the result of the solution")
    return result.strip()


@dataclass(frozen=True, slots=True)
class Preset:
    """A published problem set. `config` None: it has none. `rows` None: the count is not known, and not compared."""

    hub: str
    config: str | None
    split: str
    problem: str
    answer: str
    rows: int | None
    note: str
    take: Callable[[object], object] = as_published

    @property
    def source(self) -> str:
        """The same set as it would be written without its name."""
        return f"{self.hub}{'' if self.config is None else f':{self.config}'}@{self.split}"


def _paper(hub: str, split: str, rows: int | None, note: str) -> Preset:
    """A set that the authors of arXiv:2503.20783 published again with their environments (github.com/axon-rl/gem)."""
    return Preset(f"axon-rl/{hub}", None, split, "problem", "answer", rows, note)


PRESETS: dict[str, Preset] = {
    # to train on
    "math12k": _paper("MATH-12k", "train", 12_000, "MATH without MATH-500; the same questions are in hiyouga/math12k@train"),
    "math_lvl3to5": _paper("MATH-lvl3to5-8k", "train", 8_523, "MATH levels 3 to 5, as in SimpleRL-Zoo"),
    "gsm8k": Preset("openai/gsm8k", "main", "train", "question", "answer", 7_473, "grade-school word problems", after_hashes),
    "gsm8k_test": Preset("openai/gsm8k", "main", "test", "question", "answer", 1_319, "held out from gsm8k", after_hashes),
    "asdiv": _paper("ASDIV-2k", "train", 1_788, "one-step arithmetic word problems"),
    "orz57k": _paper("ORZ-57k", "train", None, "Open-Reasoner-Zero, about 57,000 rows, its conversations already taken apart"),
    "big_math": Preset(
        "open-r1/Big-Math-RL-Verified-Processed", "all", "train", "prompt", "solution", None, "Big-Math, answers that parse only"
    ),
    # to evaluate on
    "aime24": _paper("math-eval", "aime24", 30, "answers are integers, zero-padded"),
    "amc": _paper("math-eval", "amc", 83, "AMC 12 of 2022 and 2023, numeric answers"),
    "math500": _paper("math-eval", "math", 500, "MATH-500"),
    "minerva": _paper("math-eval", "minerva", 272, "undergraduate science and mathematics"),
    "olympiad_bench": _paper("math-eval", "olympiad_bench", 675, "OlympiadBench: English, mathematics, text only"),
}
