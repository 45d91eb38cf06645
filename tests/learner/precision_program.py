"""What each of two ranks runs in bfloat16: gradients against float64 ones, and a hundred updates too small for bfloat16 weights.

precision_program.py MODEL_DIRECTORY OUTPUT.json, under torchrun; rank 0 writes what it found.
"""

import math
import random
import sys

import torch
from deepspeed_runs import float32, fresh, ranks, record_gradients, settings, write
from exactness import TEMPERATURE, flat, float64_model, random_updates, relative, without_silent

from fastgrpo.config import LossConfig
from fastgrpo.learner.deepspeed import DeepSpeedLearner
from fastgrpo.learner.native import adamw
from fastgrpo.loss import packed_loss
from fastgrpo.model import head_weight, kept_hidden_states
from fastgrpo.packing import pack_one

LOSS = LossConfig(type="dr_grpo")
LR = 1e-6
STEPS = 100


def rounded(path):
    """The bfloat16 model's weights in float64."""
    model = float64_model(path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


def plain_gradient(model, packs):
    """Accumulated by autograd in the parameters' own precision."""
    for batch in packs:
        packed_loss(kept_hidden_states(model, batch), head_weight(model), batch, LOSS, TEMPERATURE).loss.backward()
    return flat(parameter.grad for parameter in model.parameters())


def learner_gradient(path, zero, packs, rank, size):
    learner, gradients = DeepSpeedLearner(fresh(path, "bfloat16"), LOSS, TEMPERATURE, lambda update: 0.0, math.inf, settings(zero)), []
    record_gradients(learner, gradients)
    learner.update(packs[rank::size])
    return gradients[0]


def small_model(path):
    """Weights of 0.02, as those of models that people train."""
    model = fresh(path, "bfloat16")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.2
    return model


def constant_gradients(model):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(parameter.shape, generator=generator).to(parameter.dtype) for parameter in model.parameters()]


def masters(learner):
    """Float32 weights, each whole."""
    return [tensor.clone() for name, tensor in learner.state() if name.startswith("master/")]


def masters_moved(path, zero):
    """How far `STEPS` updates moved the masters, and how far each was from float64's way, both over that way."""
    model = small_model(path)
    for parameter, gradient in zip(model.parameters(), constant_gradients(model), strict=True):
        parameter.register_hook(lambda _, gradient=gradient: gradient)
    learner = DeepSpeedLearner(model, LOSS, TEMPERATURE, lambda update: LR, math.inf, settings(zero))
    start = [master.double() for master in masters(learner)]
    for _ in range(STEPS):
        learner.update([])
    moved = flat(master.double() - old for master, old in zip(masters(learner), start, strict=True))
    totals = torch.stack([moved.square().sum(), (moved - moved.sign() * STEPS * LR).square().sum(), torch.tensor(float(moved.numel()))])
    assert totals[2] == sum(parameter.numel() for parameter in fresh(path).parameters())
    whole = STEPS * LR * totals[2].sqrt()
    return (totals[0].sqrt() / whole).item(), (totals[1].sqrt() / whole).item()


def bfloat16_moved(path):
    """The same updates of a copy without masters, by the same optimizer."""
    model = small_model(path)
    start, optimizer = flat(model.parameters()), adamw(list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), constant_gradients(model), strict=True):
        parameter.grad = gradient
    for group in optimizer.param_groups:
        group["lr"] = LR
    for _ in range(STEPS):
        optimizer.step()
    moved = flat(model.parameters()) - start
    return (moved.norm() / (STEPS * LR * moved.numel() ** 0.5)).item()


def main(path: str, output: str) -> None:
    with ranks() as (rank, size):
        rng, found = random.Random(1), {}
        sequences = without_silent(random_updates(rng, LOSS, groups=8, group_size=8, updates=1)[0], LOSS)
        parts = float32([pack_one(sequences[k::16], torch.float64) for k in range(16)])
        whole = float32([pack_one(sequences, torch.float64)])
        want = plain_gradient(rounded(path), [pack_one(sequences, torch.float64)])
        found["bfloat16 accumulation"] = relative(plain_gradient(fresh(path, "bfloat16"), parts), want)
        found["copy without masters"] = bfloat16_moved(path)
        for zero in (1, 2, 3):
            errors = [relative(learner_gradient(path, zero, packs, rank, size), want) for packs in (whole, parts)]
            moved, off = masters_moved(path, zero)
            found[f"zero {zero}"] = {"one batch": errors[0], "16 packs": errors[1], "moved": moved, "off": off}
        write(rank, output, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
