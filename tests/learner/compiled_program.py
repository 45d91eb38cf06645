"""What each of two ranks runs: DeepSpeed's learner with compiled layers beside one with plain ones, at ZeRO 0 to 2; asserts on every rank.

compiled_program.py MODEL, under torchrun. One rank has a pack more, so that the other runs a blank one.
"""

import sys

import torch
from deepspeed_runs import fresh, ranks, settings, weights
from test_compiled import graphs, packs

from fastgrpo.config import LossConfig
from fastgrpo.learner.compiled import compile_layers
from fastgrpo.learner.deepspeed import DeepSpeedLearner


def outcome(learner, rank: int) -> list[torch.Tensor]:
    mine = packs()[rank::2][: 3 - rank]
    found = [torch.cat(learner.logprobs(mine))]
    for _ in range(2):
        stats, norm = learner.update(mine)
        found.append(torch.tensor([norm, *(values["loss"] for values in stats)]))
    return [*found, weights(learner)]


def learner(directory: str, zero: int, compiled: bool) -> DeepSpeedLearner:
    model = fresh(directory)
    if compiled:
        compile_layers(model)
    chosen = settings(zero, recompute=zero == 2)
    return DeepSpeedLearner(model, LossConfig(type="dr_grpo"), 1.0, lambda update: 1e-3, 1.0, chosen)


def main(directory: str) -> None:
    with ranks() as (rank, _):
        for zero in range(3):
            before = graphs()
            want, got = (outcome(learner(directory, zero, compiled), rank) for compiled in (False, True))
            for right, found in zip(want, got, strict=True):
                assert (found - right).abs().max() <= 1e-4 * right.abs().max(), zero
            assert 0 <= graphs() - before <= 12, zero
            assert graphs() > 0
        if rank == 0:
            print("all checked")


if __name__ == "__main__":
    main(*sys.argv[1:])
