"""What each rank runs under torchrun: three rounds with an engine of its own, or with its part of one; writes what it found.

torchrun --nproc_per_node=2 two_ranks.py TENSOR_PARALLEL OUTPUT_DIRECTORY
"""

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist
from colocation import LONG, PROMPTS, improve, native_learner, pairs, sample, tiny_engine, tiny_model
from conftest import byte_tokenizer

from fastgrpo.rollout.native import NativeEngine
from fastgrpo.rollout.parity import parity
from fastgrpo.rollout.process_state import prepare_environment


def name_shared_memory_after_this_launch() -> None:
    """vLLM names what CPU ranks share alike in every launch, so that one which died, or another's, would be in the way."""
    prepare_environment()
    from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed as Shared

    name = Shared.make_group_name
    Shared.make_group_name = staticmethod(lambda communicator: f"{name(communicator)}-{os.environ['MASTER_PORT']}")


def main(tensor_parallel: str, output: str) -> None:
    name_shared_memory_after_this_launch()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = tiny_model("qwen untied")
    engine = tiny_engine(model, "auto", tensor_parallel=int(tensor_parallel))
    learner, native = native_learner(model), NativeEngine(model, byte_tokenizer())
    prompts = [*PROMPTS[rank:4:2], LONG][: 3 - rank * (tensor_parallel == "2")]  # unequal shares, where they are drawn together
    gaps, responses, same = [], [], True
    for round in range(3):
        engine.update_weights(learner.named_weights())
        base = 10**6 * (2 * round + rank)
        groups = sample(engine, base=base, prompts=prompts)
        same &= [[r.token_ids for r in group] for group in groups] == [
            [r.token_ids for r in group] for group in sample(native, base=base, prompts=prompts)
        ]
        engine.sleep()
        gaps.append(parity(learner.logprobs, pairs(groups, prompts)).largest)
        responses += [list(rollout.token_ids) for group in groups for rollout in group][: 6 if round == 0 else 0]
        improve(learner, groups, prompts)
    report = {
        "weights": engine.metrics()["weights"],
        "gaps": gaps,
        "same_as_native": same,
        "responses": responses,
        "local_world_size": os.environ["LOCAL_WORLD_SIZE"],
    }
    with open(f"{output}/rank_{rank}.json", "w") as file:
        json.dump(report, file)
    for file in Path("/dev/shm").glob(f"*-cpushm-{os.environ['MASTER_PORT']}_*"):
        file.unlink(missing_ok=True)
    dist.barrier()  # no rank leaves while another still talks to it
    os._exit(0)  # at once: gloo's threads abort, now and then, a process that takes its objects down around them


if __name__ == "__main__":
    main(*sys.argv[1:])
