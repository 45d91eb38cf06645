"""Accuracies that arXiv:2503.20783 publishes (Tables 1 and 4), to stand beside ours: in per cent, greedy, 3,000 new tokens.

Where the paper does not say under which template a model was measured, the row goes with any. The hub ids are the models' public names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

BENCHMARKS = ("aime24", "amc", "math500", "minerva", "olympiad_bench")


@dataclass(frozen=True, slots=True)
class Published:
    """One row: the model's name, its template ("" where unsaid), budget in tokens, and accuracies in the order of BENCHMARKS."""

    model: str
    template: str
    max_new_tokens: int
    accuracies: tuple[float, float, float, float, float]


ROWS = (
    Published("Qwen2.5-Math-1.5B", "4-shot", 3000, (0.0, 20.0, 50.4, 12.1, 15.9)),
    Published("Qwen2.5-Math-1.5B", "r1", 3000, (0.0, 9.6, 21.2, 6.6, 2.2)),
    Published("Qwen2.5-Math-1.5B", "qwen_math", 3000, (20.0, 32.5, 33.0, 12.5, 22.8)),
    Published("Qwen2.5-Math-1.5B", "no", 3000, (16.7, 43.4, 61.8, 15.1, 28.4)),
    Published("Qwen2.5-Math-7B", "4-shot", 3000, (3.3, 22.5, 61.6, 10.7, 20.9)),
    Published("Qwen2.5-Math-7B", "r1", 3000, (0.0, 0.0, 0.0, 0.0, 0.1)),
    Published("Qwen2.5-Math-7B", "qwen_math", 3000, (16.7, 38.6, 50.6, 9.9, 16.6)),
    # printed as 0.2 on AIME24, which 30 problems cannot give; the printed average of 38.2 needs 20.0
    Published("Qwen2.5-Math-7B", "no", 3000, (20.0, 45.8, 69.0, 21.3, 34.7)),
    Published("Qwen2.5-Math-1.5B-Oat-Zero", "qwen_math", 3000, (20.0, 53.0, 74.2, 25.7, 37.6)),
    Published("DeepSeek-R1-Distill-Qwen-1.5B", "", 3000, (2.5, 21.7, 52.2, 16.3, 17.3)),
    Published("DeepSeek-R1-Distill-Qwen-1.5B", "", 8000, (20.0, 49.4, 77.4, 25.0, 35.8)),
    Published("Qwen2.5-Math-1.5B-Instruct", "", 3000, (10.0, 48.2, 74.2, 26.5, 40.2)),
    Published("Llama-3.2-3B", "", 3000, (0.0, 2.4, 6.4, 6.3, 1.3)),
    Published("FineMath-Llama-3B", "", 3000, (0.0, 3.6, 18.4, 5.9, 2.2)),
    Published("Llama-3.2-3B-Oat-Zero", "r1", 3000, (6.7, 18.1, 50.0, 14.3, 14.7)),
    Published("Llama-3.2-3B-Instruct", "", 3000, (6.7, 15.7, 38.8, 11.8, 12.6)),
    Published("Qwen-2.5-Math-7B-SimpleRL-Zero", "", 3000, (26.7, 60.2, 78.2, 27.6, 40.3)),
    Published("Eurus-2-7B-PRIME-Zero", "", 3000, (16.7, 62.7, 83.8, 36.0, 40.9)),
    Published("Open-Reasoner-Zero-7B", "", 3000, (13.3, 47.0, 79.2, 31.6, 44.0)),
    Published("Open-Reasoner-Zero-7B", "", 8000, (13.3, 54.2, 82.4, 31.6, 47.9)),
    Published("Qwen2.5-Math-7B-Oat-Zero", "qwen_math", 3000, (43.3, 62.7, 80.0, 30.1, 41.0)),
    Published("DeepSeek-R1-Distill-Qwen-7B", "", 3000, (10.0, 26.2, 60.1, 23.0, 23.1)),
    Published("DeepSeek-R1-Distill-Qwen-7B", "", 8000, (33.3, 68.4, 88.1, 35.9, 47.7)),
    Published("Qwen2.5-Math-7B-Instruct", "", 3000, (16.7, 53.0, 83.6, 29.8, 42.7)),
)


def published(model: str, template: str, max_new_tokens: int) -> dict[str, float]:
    """Published accuracy by benchmark, as shares, of a model (a path or hub id: its last part counts); empty where there is none."""
    name = PurePosixPath(model).name.lower()
    for row in ROWS:
        if row.model.lower() == name and row.template in ("", template) and row.max_new_tokens == max_new_tokens:
            return {benchmark: accuracy / 100 for benchmark, accuracy in zip(BENCHMARKS, row.accuracies, strict=True)}
    return {}
