"""What each of two ranks measures in bfloat16: host memory until ZeRO 3 spreads the weights, then bytes of tensors at every ZeRO stage.

memory_program.py MODEL_DIRECTORY OUTPUT.json, under torchrun; rank 0 writes what the fuller rank found, in bytes.
"""

import gc
import sys
import threading
import time

import torch
import torch.distributed as dist
from deepspeed_runs import fresh, ranks, settings, write
from test_plan_memory import LiveBytes, adamw_of_a_gpu

import fastgrpo.learner.zero_config as zero_config
from fastgrpo.config import LossConfig
from fastgrpo.learner.deepspeed import DeepSpeedLearner
from fastgrpo.packing import pack_one
from fastgrpo.ranks import Ranks
from fastgrpo.types import TrainingSequence

zero_config.REDUCE_BUCKET = 1_000_000  # else larger than the model


def own_bytes() -> int:
    """Memory of this process alone; pages of a file that was only read are no part of it."""
    with open("/proc/self/smaps_rollup") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("Anonymous:"))


def peak_of(work) -> int:
    """By how much own memory rises, at most, during `work`."""
    start, seen, over = own_bytes(), [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(own_bytes())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        over.set()
        watcher.join()
    return max(seen) - start


def load_alike(path: str, ranks: Ranks) -> None:
    """As a run does; then again from weights that differ in one tensor on one rank."""
    model = fresh(path, "bfloat16")
    ranks.same_weights(model)
    parameter = next(model.parameters())
    wanted = parameter.detach().clone()
    with torch.no_grad():
        parameter += ranks.rank
    ranks.same_weights(model)
    assert torch.equal(parameter, wanted)


def tensor_bytes(path: str, zero: int) -> dict[str, int]:
    """Bytes between updates, and the peaks of passes and of the update, from packs too short to matter."""
    batch = pack_one([TrainingSequence((5,), (7, 9), (-5.0, -5.0), 1.0, 1e-3)])
    model = fresh(path, "bfloat16")
    with LiveBytes(list(model.parameters())) as live:
        learner = DeepSpeedLearner(model, LossConfig(type="dr_grpo"), 1.0, lambda update: 1e-6, 1.0, settings(zero), adamw_of_a_gpu)
        learner.update([batch])  # from now on the moments exist
        gc.collect()
        found, step = {"kept": live.live}, learner.engine.step

        def measured_step() -> None:
            found["passes"], live.peak = live.peak, live.live
            step()
            found["update"] = live.peak

        learner.engine.step, live.peak = measured_step, live.live
        learner.update([batch, batch])
        gc.collect()
    assert live.live == found["kept"], "an update leaves something behind"
    return found


def main(path: str, output: str) -> None:
    with ranks() as (rank, size):
        DeepSpeedLearner(fresh(path, "bfloat16"), LossConfig(type="dr_grpo"), 1.0, lambda update: 0.0, 1.0, settings(3))  # warm up
        gc.collect()
        found = {"loading": peak_of(lambda: load_alike(path, Ranks(rank, size)))}
        for zero in (1, 2, 3):
            found |= {f"zero {zero}, {moment}": size for moment, size in tensor_bytes(path, zero).items()}
        both = [None] * size
        dist.all_gather_object(both, found)
        write(rank, output, {name: max(one[name] for one in both) for name in found})


if __name__ == "__main__":
    main(*sys.argv[1:])
