"""A toy run is killed at random moments, resumed each time, and has to end as one that nobody disturbed, bit for bit.

    python bench/random_kills.py [KILLS] [SEED]

A kill comes after a random time, or at a random point of a step or of a checkpoint's writing. Each attempt is a fork of this process,
which has loaded what takes long to import, and nothing more. Exits with 1, and keeps the files, where anything differs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"

# ruff: noqa: E402  (the paths come first)
import torch
import transformers.models.qwen2.modeling_qwen2  # noqa: F401  (in this process, once)
from conftest import byte_tokenizer
from outcomes import differences, outcome

import fastgrpo.trainer  # noqa: F401
from fastgrpo.checkpoint import steps
from fastgrpo.config import load_config
from fastgrpo.display import NoDisplay
from fastgrpo.launch import launch
from fastgrpo.types import Grade

STEPS = 8
POINTS = ("sample", "grade", "learn", "save", "evaluate", "metrics", "rollouts")
SETTINGS = (
    *("dtype=float32", f"steps={STEPS}", "prompts_per_step=4", "samples_per_prompt=4", "updates_per_rollout=2", "max_new_tokens=8"),
    *("lr=1e-3", "loss.truncation=keep", "reward.preflight=false", "checkpoint.every=2", "checkpoint.best=greedy_average", "eval.every=3"),
)


def make_parts(folder: Path) -> tuple[str, ...]:
    """A random model and a problem set, below `folder`, as settings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = byte_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=300, max_position_embeddings=256, initializer_range=0.1, **sizes, **ends))
    for part in (model, tokenizer):
        part.save_pretrained(folder / "model")
    rows = [{"problem": f"Say {letter}.", "answer": letter} for letter in "abcdefgh"]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return (f"model={folder / 'model'}", f"data.train={folder / 'problems.jsonl'}", f"data.eval=[{folder / 'problems.jsonl'}]")


class Checksums:
    """In place of the grader: reward 1 for half of all texts."""

    def submit(self, key, text, gold) -> None:
        self.texts = getattr(self, "texts", {}) | {key: text}

    def results(self) -> dict:
        texts, self.texts = getattr(self, "texts", {}), {}
        return {key: Grade(float(zlib.crc32(text.encode()) % 2), True, "ok") for key, text in texts.items()}


def attempt(settings: tuple[str, ...], directory: Path, faults: str = "", seconds: float | None = None) -> int:
    """Starts or resumes the run in a process of its own, which is killed after `seconds`; the code that the process ended with."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ["FASTGRPO_FAULTS"] = faults
            import fastgrpo.rewards

            fastgrpo.rewards.Grader.submit, fastgrpo.rewards.Grader.results = Checksums.submit, Checksums.results
            launch(load_config("tiny", [*SETTINGS, *settings, f"run_dir={directory}"]), NoDisplay(), "auto")
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def random_kill(rng: random.Random, directory: Path, whole: float) -> tuple[str, dict]:
    """What kind of kill, and the arguments of `attempt` for it; `whole` is what an undisturbed run takes, in seconds."""
    kind = rng.choice(("time", "write", "point"))
    if kind == "time":
        return kind, {"seconds": rng.uniform(0.0, whole)}
    if kind == "write":
        return kind, {"faults": f"write@{rng.randint(1, 30)}:0:kill"}
    done = max((step for step, _ in steps(directory / "checkpoints")), default=0)
    point = rng.choice(POINTS)
    return point, {"faults": f"{point}@{rng.randint(min(done + 1, STEPS), STEPS)}:0:kill"}


def main(kills: int, seed: int) -> int:
    rng, started, met, runs = random.Random(seed), time.monotonic(), Counter(), 0
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="random-kills-"))
    settings = make_parts(folder)
    begun = time.monotonic()
    if attempt(settings, folder / "undisturbed") != 0:
        return 1
    whole, want = time.monotonic() - begun, outcome(folder / "undisturbed", but=())
    while met.total() < kills:
        runs += 1
        directory = folder / f"run_{runs}"
        code = None
        while code != 0:
            kind, how = random_kill(rng, directory, whole) if met.total() < kills else ("none", {})
            code = attempt(settings, directory, **how)
            met[kind] += code == -signal.SIGKILL
            if code not in (0, -signal.SIGKILL):
                print(f"{directory}: after {kind} {how} a process ended with {code}")
                return 1
        wrong = differences(want, outcome(directory, but=()))
        if wrong:
            print(f"{directory} differs from {folder / 'undisturbed'}: {', '.join(wrong)}")
            return 1
    each = ", ".join(f"{name} {count}" for name, count in sorted(met.items()) if count)
    print(f"{met.total()} kills ({each}) in {runs} runs of {STEPS} steps, {time.monotonic() - started:.0f} s:")
    print("every run ended with the weights, optimizer state, metrics, responses and pointers of the undisturbed one")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, (*sys.argv[1:3], *("20", "0")[len(sys.argv) - 1 :]))))
