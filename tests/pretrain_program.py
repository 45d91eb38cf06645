"""Pretraining as it is, in float64 throughout, with the gradients of each update kept: in this process, or a rank of torchrun.

torchrun --nproc_per_node=N pretrain_program.py OUTPUT.pt SETTING ...
"""

import os
import sys

import torch
import torch.distributed as dist
from exactness import flat, float64_model
from pytest import MonkeyPatch

from fastgrpo.config import load_config
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.display import NoDisplay
from fastgrpo.launch_pretraining import launch_pretraining
from fastgrpo.learner.native import NativeLearner


def gradients_of(settings: list[str]) -> list[torch.Tensor]:
    """Summed over ranks, before clipping, of each update; flat float64."""
    found, honest = [], NativeLearner._sum_over_ranks

    def keeping(learner):
        honest(learner)
        found.append(flat(learner.gradients).clone())

    with MonkeyPatch.context() as patch:
        patch.setattr(NativeLearner, "_sum_over_ranks", keeping)
        patch.setattr("fastgrpo.model.load_model", lambda path, *_: float64_model(path))
        launch_pretraining(load_config("tiny-text", ["dtype=float64", *settings], PretrainConfig), NoDisplay())
    return found


if __name__ == "__main__":
    gradients = gradients_of(sys.argv[2:])
    if dist.get_rank() == 0:
        torch.save(gradients, sys.argv[1])
    dist.barrier()
    os._exit(0)  # gloo's threads abort, now and then, a process that takes its objects down around them
