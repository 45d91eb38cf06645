"""Memory and seconds of a colocated rollout engine through rounds of generate, sleep, train, wake, push: a Markdown table and JSON.

    python bench/rollout_memory.py [--size toy|1.5b|7b] [--out FOLDER] [--cache-gib GIB] [--only WAY ...]

Random weights, tied and untied; each way in a process of its own, so that none mixes with another. `shared` is one set of weights, of which
only the KV cache sleeps; `push, level 1` keeps the engine's copy in host memory, `push, level 2` discards it. The second round counts: its
weights are those after a training step, and parity compares the engine's log-probs with the learner's. On a CPU nothing really sleeps.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from measure import synchronize
from step_problem import SIZES, make_model

from fastgrpo.config import LossConfig
from fastgrpo.learner.native import NativeLearner
from fastgrpo.packing import pack
from fastgrpo.rollout.colocated import VllmEngine
from fastgrpo.rollout.parity import parity, require_parity, spread
from fastgrpo.rollout.process_state import memory_mib
from fastgrpo.rollout.vllm_settings import VllmSettings
from fastgrpo.types import Prompt, Sampling, TrainingSequence

GPU = torch.cuda.is_available()
WAYS = {"shared": ("shared", None), "push, level 2": ("push", 2), "push, level 1": ("push", 1)}
COLUMNS = ("torch_allocated", "torch_reserved", "device_free", "resident")


def measure(size_name: str, way: str, tied: bool, cache_gib: float) -> dict:
    """{phase: {seconds, memory in MiB}} of the second round, and its parity."""
    size, (weights, level), dtype = SIZES[size_name], WAYS[way], torch.bfloat16 if GPU else torch.float32
    model, _ = make_model(replace(size.shape, tied=int(tied)), "cuda" if GPU else "cpu", dtype)
    learner = NativeLearner(model, LossConfig(type="dr_grpo"), 1.0, lambda update: 1e-6, 1.0)
    draw, context = random.Random(0), size.prompt_tokens[1] + size.budget
    ids = [tuple(draw.randrange(2, size.shape.vocabulary) for _ in range(size.prompt_tokens[1])) for _ in range(size.prompts)]
    prompts = [Prompt(str(index), one, "") for index, one in enumerate(ids)]
    seeds = [[100 * i + j for j in range(size.samples)] for i in range(size.prompts)]
    phases = {}

    def timed(name: str, work) -> object:
        synchronize()
        started = time.monotonic()
        result = work()
        synchronize()
        phases[name] = {"seconds": time.monotonic() - started, **memory_mib()}
        return result

    def train(groups) -> None:
        pairs = [(prompt, rollout, j) for prompt, group in zip(prompts, groups, strict=True) for j, rollout in enumerate(group)]
        sequences = [TrainingSequence(p.token_ids, r.token_ids, r.logprobs, 1.0 if j % 2 else -1.0, 1e-4) for p, r, j in pairs]
        batches = pack(sequences, size.tokens_per_pack)
        learner.update(batches) if size.steps else learner.backward(batches[0])

    settings = VllmSettings(context, len(prompts) * size.samples, int(cache_gib * 2**30), weights)
    engine = timed("engine built", lambda: VllmEngine(model, tokenizer(size.shape.vocabulary), settings))
    if level is not None:
        engine.sleep_level = level
    sampling = Sampling(1.0, size.budget // 4)
    for _ in range(2):
        timed("weights taken", lambda: engine.update_weights(learner.named_weights()))
        groups = timed("generated", lambda: engine.generate(prompts, size.samples, sampling, seeds))
        timed("asleep", engine.sleep)
        found = parity(learner.logprobs, spread(prompts, groups))
        require_parity(0, str(dtype).removeprefix("torch."), found)
        timed("trained, engine asleep", lambda groups=groups: train(groups))
    return {"phases": phases, "parity": asdict(found), "level": engine.sleep_level, "pushed MiB": engine.pushed[0] / 2**20}


def tokenizer(vocabulary: int):
    """A word for each id; 0 ends and pads."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"<{index}>": index for index in range(vocabulary)}, unk_token="<0>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<0>", pad_token="<0>")


def main(arguments: argparse.Namespace) -> bool:
    """Whether every way went through."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    path, results = arguments.out / f"rollout-memory-{arguments.size}.json", {}
    print("| weights | phase | seconds | torch allocated MiB | torch reserved | device free | resident |\n" + "|---" * 7 + "|", flush=True)
    for way in arguments.only or WAYS:
        for tied in (True, False):
            one = [sys.executable, __file__, "--one", way, "tied" if tied else "untied", "--size", arguments.size]
            done = subprocess.run([*one, "--cache-gib", str(arguments.cache_gib)], stdout=subprocess.PIPE, text=True)
            name = f"{way}, {'tied' if tied else 'untied'}"
            if done.returncode:
                results[name] = {"failed": done.returncode}
                print(f"| {name} | failed, see what it wrote |" + " |" * 5, flush=True)
            else:
                results[name] = json.loads(done.stdout.splitlines()[-1])
                print("\n".join(rows(name, results[name])), flush=True)
            path.write_text(json.dumps(results, indent=1))
    return not any("failed" in result for result in results.values())


def rows(name: str, result: dict) -> list[str]:
    lines = []
    for phase, found in result["phases"].items():
        memory = ["unmeasured" if column not in found else f"{found[column]:,.0f}" for column in COLUMNS]
        lines.append(f"| {name} | {phase} | {found['seconds']:.3f} | {' | '.join(memory)} |")
    gap = result["parity"]
    return [*lines, f"| {name} | parity {gap['mean']:.1e} nats, at most {gap['largest']:.1e} |" + " |" * 5]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1.5b" if GPU else "toy")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--cache-gib", type=float, default=8.0 if GPU else 0.0625)
    parser.add_argument("--only", nargs="+", choices=WAYS, metavar="WAY", help=f"of {'; '.join(WAYS)}")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "TIED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.size, given.one[0], given.one[1] == "tied", given.cache_gib)))
    else:
        sys.exit(0 if main(given) else 1)
