"""What each rank runs under torchrun: honest updates and every planted one; rank 0 writes the errors.

torchrun --nproc_per_node=N ranks_program.py MODEL_DIRECTORY OUTPUT.json
"""

import importlib.util
import json
import os
import random
import sys

import torch.distributed as dist
from exactness import (
    LR,
    PLANTED,
    float64_model,
    gradient_errors,
    learner_result,
    naive_result,
    random_cut,
    random_updates,
    sgd,
    without_silent,
)
from learner.adapters import adapted

from fastgrpo.config import LossConfig
from fastgrpo.learner.native import adamw


def main(model_directory: str, output: str) -> None:
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    loss, rng = LossConfig(type="dr_grpo"), random.Random(7)
    updates = random_updates(rng, loss)
    cut = [random_cut(without_silent(part, loss), 5, rng) for part in updates]
    # The last rank's share of the first update is taken away and given to rank 0: a rank without work must not hang the others.
    plans = {
        "spread": lambda packs: packs[rank::ranks],
        "one rank idle": lambda packs: packs[rank :: ranks - 1] if rank < ranks - 1 else [],
    }
    errors = {}
    want = naive_result(float64_model(model_directory), None, updates, loss, sgd)
    for name, share in plans.items():
        errors[name] = gradient_errors(learner_result(float64_model(model_directory), None, cut, loss, sgd, share=share), want)
    for name, plant in PLANTED.items():
        spoiled = learner_result(float64_model(model_directory), None, cut, loss, sgd, plant, plans["spread"])
        errors[name] = gradient_errors(spoiled, want)
    if importlib.util.find_spec("peft"):
        want = naive_result(adapted(float64_model(model_directory)), None, updates, loss, sgd)
        got = learner_result(adapted(float64_model(model_directory)), None, cut, loss, sgd, share=plans["one rank idle"])
        errors["adapters"] = gradient_errors(got, want)
    want = naive_result(float64_model(model_directory), None, updates, loss, adamw)
    got = learner_result(float64_model(model_directory), None, cut, loss, adamw, share=plans["spread"])
    errors["adamw"] = (got.delta - want.delta).abs().max().item() / LR
    if rank == 0:
        with open(output, "w") as file:
            json.dump(errors, file)
    dist.barrier()  # no rank leaves while another still talks to it
    os._exit(0)  # at once: gloo's threads abort, now and then, a process that takes its objects down around them


if __name__ == "__main__":
    main(*sys.argv[1:])
