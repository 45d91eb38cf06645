"""Run directories that were never trained, as large and as odd as a test wants them, in the form that a run leaves."""

import json
import math
import os
import random
from functools import cache
from pathlib import Path

import pyarrow
import pyarrow.parquet

from fastgrpo.config import load_config, to_yaml

DISTINCT = 4  # files of rollouts; the others are links to them
WORDS = ("so", "the sum of", "both", "is", "therefore", "we find that", "each box", "holds", "and then", "x", "equals", "the answer")
NASTY = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> </script></style><!-- ",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 and \u4e2d\u6587, LaTeX $\\frac{1}{2}$ \\boxed{5} &amp; &lt;b&gt;",
    "control \x00 \x07 \x1b[31mred\x1b[0m \x7f \u202eover\u202c \u2028 end\r\n\ttab",
)


@cache
def token_of_bytes() -> dict[int, int]:
    """As the byte tokenizer of the tests has them: bytes as printable characters, those in order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    characters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return {byte: token for token, byte in enumerate(sorted(characters, key=characters.get))}


def rollout_row(step: int, index: int, text: str, reward: float | None, draw: random.Random, **others) -> dict:
    """A row of a rollouts file: a token for each byte."""
    ids = [token_of_bytes()[byte] for byte in text.encode()]
    row = {
        "step": step,
        "prompt_id": f"set-{index // 8}",
        "problem": f"Problem {index // 8} of step {step}: how much is {index} + {step}?",
        "answer": json.dumps(str(index + step)),
        "sample": index % 8,
        "text": text,
        "token_ids": ids,
        "logprobs": [-draw.expovariate(2.0) for _ in ids],
        "finish_reason": "stop",
        "formatted": True,
        "grading": "ok",
        "reward": reward,
        "rewards": "{}",
        "advantage": 0.0 if reward is None else reward - 0.5,
    }
    return row | others


def write_rollouts(path: Path, step: int, responses: int, mean_words: float = 20.0) -> None:
    draw, rows = random.Random(step), []
    for index in range(responses):
        words = max(1, int(draw.lognormvariate(math.log(mean_words), 0.6)))
        cut = draw.random() < 0.05
        text = " ".join(draw.choices(WORDS, k=words)) + f" \\boxed{{{index + step}}}"
        finish = {"finish_reason": "length" if cut else "stop"}
        rows.append(rollout_row(step, index, text, 0.0 if cut else float(draw.random() < 0.5), draw, **finish))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_nasty_rollouts(path: Path, step: int) -> None:
    """Texts that would break out of a page, and rows of every kind that a filter tells apart."""
    draw = random.Random(step)
    rows = [rollout_row(step, i, text, 1.0, draw, problem=text, answer=json.dumps(text)) for i, text in enumerate(NASTY)]
    rows += [
        rollout_row(step, 3, "cut", 0.0, draw, finish_reason="length"),
        rollout_row(step, 4, "nobody could grade this", None, draw, grading="unscorable"),
        rollout_row(step, 5, "a timeout", 0.0, draw, grading="timeout"),
        rollout_row(step, 6, "long " * 200, -1.0, draw, rewards=json.dumps({"verifier": 0.0, "short": -1.0})),
        rollout_row(step, 7, "tokens that are not this text", 1.0, draw) | {"token_ids": [65, 66], "logprobs": [-0.5, -9.0]},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def step_row(step: int, draw: random.Random, updates: int = 8) -> dict:
    """A line of metrics.jsonl."""
    rise = 1 - math.exp(-step / 120)
    reward = 0.3 + 0.5 * rise + draw.gauss(0, 0.02)
    update = {
        "loss": 0.01,
        "grad_norm": abs(draw.gauss(0.2, 0.05)),
        "lr": 1e-6,
        "tokens": 40_000,
        "entropy": 0.5 - 0.3 * rise,
        "clip_low": 0.001,
        "clip_high": 0.002,
        "kl_k1": 1e-4,
        "kl_k3": 2e-4,
        "ratio_max": 1 + abs(draw.gauss(0, 1)),
        "logprob_gap": 0.004,
        "logprob_gap_max": 0.3,
        "padding": 0.0,
        "fill": 0.55,
        "imbalance": 0.02,
        "packs": 4,
        "empty_packs": 0,
    }
    return {
        "step": step,
        "reward": reward,
        "rewards": {},
        "accuracy": reward,
        "formatted": 0.9,
        "length": 600 - 100 * rise,
        "length_right": 500 - 80 * rise,
        "length_wrong": 700 + 100 * rise,
        "length_max": 3000,
        "truncated": 0.05,
        "zero_signal": 0.3 + 0.2 * rise,
        "zero_signal_right": 0.1 + 0.3 * rise,
        "zero_signal_wrong": 0.2 - 0.1 * rise,
        "duplicates": 0.01,
        "response_tokens": 600_000,
        "grading": {"ok": 1020, "timeout": 2, "crash": 0, "unparsable": 2, "unscorable": 0},
        "rollout_engine": {"preemptions": 0, "memory_mib": {"generated": {"resident": 9000.0 + step, "device_free": 20_000.0 - step}}},
        "parity": {"mean": 0.004, "largest": 0.2, "tokens": 4000},
        "updates": [update | {"grad_norm": abs(draw.gauss(0.2, 0.05))} for _ in range(updates)],
        "seconds": {"sample": 60 + draw.random(), "grade": 0.5, "learn": 80 + draw.random()},
    }


def evaluation_row(step: int) -> dict:
    share = 0.3 + 0.4 * (1 - math.exp(-step / 120))
    sets = {
        name: {
            "problems": size,
            "samples": 1,
            "accuracy": share + shift,
            "low": share + shift - 60 / (size + 300),
            "high": share + shift + 60 / (size + 300),
            "truncated": 0.03,
        }
        for name, size, shift in (("aime24", 30, -0.2), ("math500", 500, 0.1))
    }
    return {"step": step, "evaluation": {"greedy": sets}, "seconds": {"evaluate": 90.0}}


def write_run(
    directory: Path, steps: int, responses: int = 0, settings: tuple[str, ...] = (), finished: bool = True, seed: int = 0
) -> Path:
    """A run of so many steps; with `responses` of them a step in parquet files."""
    draw = random.Random(seed)
    for folder in ("rollouts", "evals", "checkpoints", "logs"):
        (directory / folder).mkdir(parents=True)
    (directory / "config.yaml").write_text(to_yaml(load_config("tiny", [f"steps={steps}", f"seed={seed}", *settings])))
    rows = [evaluation_row(0)]
    for step in range(1, steps + 1):
        rows += [step_row(step, draw), *([evaluation_row(step)] if step % 16 == 0 else [])]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "lock").write_text("{}\n")
    (directory / "logs" / "rank_0.log").write_text("     0.10 s  tiny\n")
    if finished:
        (directory / "summary.json").write_text(json.dumps({"steps": steps, "seconds": 141.0 * steps}))
    for step in range(1, steps + 1 if responses else 1):
        path = directory / "rollouts" / f"step_{step:06d}.parquet"
        if step <= DISTINCT:
            write_rollouts(path, step, responses)
        else:
            os.link(directory / "rollouts" / f"step_{1 + step % DISTINCT:06d}.parquet", path)
    return directory


RESULTS = {
    "experiment": "bias",
    "title": "Bias <in> miniature",
    "source": "a figure",
    "quick": False,
    "arms": {"dr_grpo": "Dr. GRPO", "grpo": "GRPO <i>"},
    "measures": {"length_wrong": "length of wrong answers"},
    "values": {},
    "axes": {"length_wrong": "temperature"},
    "bars": {"At the end": ["length_wrong"]},
    "published": {"length_wrong": {"grpo": 1.5}},
    "excerpts": {"grpo": [{"question": "How much?", "passage": "wait <b>no", "right": True, "keywords": ["wait"], "judged": False}]},
    "means": {"length_wrong": {"dr_grpo": {"mean": 1.0, "sd": 0.5, "seeds": 2}, "grpo": {"mean": 2.0, "sd": None, "seeds": 1}}},
    "curves": {"length_wrong": {"dr_grpo-0": [[1, 1.0], [2, None]], "dr_grpo-1": [[1, 3.0], [2, 5.0]], "grpo-0": [[1, 7.0], [2, 8.0]]}},
    "verdicts": [{"word": "shown", "sentence": "GRPO's wrong answers are longer: <shown>"}],
}
"""What an experiment leaves in results.json."""


def add_tokenizer(directory: Path) -> None:
    """A checkpoint with the byte tokenizer, which cuts these texts into tokens."""
    from conftest import byte_tokenizer

    byte_tokenizer().save_pretrained(directory / "checkpoints" / "step_1")
