"""Memory and seconds of a colocated rollout engine through one round, shared weights and pushed ones, as a Markdown table.

python bench/rollout_memory.py MODEL [GIB_OF_CACHE]      on a GPU; each way in a process of its own, so that the two do not mix
"""

from __future__ import annotations

import subprocess
import sys
import time

import torch

from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.rollout.colocated import VllmEngine
from fastgrpo.rollout.vllm_settings import VllmSettings
from fastgrpo.types import Prompt, Sampling


def measure(path: str, weights: str, cache_gib: float) -> None:
    on_gpu = torch.cuda.is_available()
    model, tokenizer = load_model(path, "bfloat16" if on_gpu else "float32").to("cuda" if on_gpu else "cpu"), load_tokenizer(path)
    seconds = {}

    def timed(name: str, work) -> object:
        started = time.monotonic()
        result = work()
        seconds[name] = time.monotonic() - started
        return result

    engine = timed("engine built", lambda: VllmEngine(model, tokenizer, VllmSettings(1024, 256, int(cache_gib * 2**30), weights)))
    prompts = [Prompt(str(i), tuple(range(1, 100 + i)), "") for i in range(32)]
    seeds = [[100 * i + j for j in range(8)] for i in range(32)]
    for _ in range(2):  # the second round is what counts
        timed("weights taken", lambda: engine.update_weights(model.named_parameters()))
        timed("generated", lambda: engine.generate(prompts, 8, Sampling(1.0, 512), seeds))
        timed("asleep", engine.sleep)
    for phase, memory in engine.ledger.items():
        row = [memory.get(name) for name in ("torch_allocated", "torch_reserved", "device_free", "resident")]
        cells = ["" if value is None else f"{value:,.0f}" for value in row]
        print(
            f"| {engine.metrics()['weights']}, level {engine.sleep_level} | {phase} | {seconds.get(phase, 0):.3f} | {' | '.join(cells)} |"
        )


def main(path: str, cache_gib: str = "4") -> None:
    print("| weights | phase | seconds | torch allocated MiB | torch reserved | device free | resident |\n" + "|---" * 7 + "|", flush=True)
    for weights in ("auto", "push"):
        subprocess.run([sys.executable, __file__, "--one", path, weights, cache_gib], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        main(*sys.argv[1:])
