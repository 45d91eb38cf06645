"""What each of two ranks runs with adapters on DeepSpeed, at every ZeRO stage; asserts on every rank. lora_program.py MODEL_DIRECTORY."""

import random
import sys

import torch
from deepspeed_runs import float32, fresh, ranks, record_gradients, settings
from exactness import TEMPERATURE, float64_model, naive_result, random_cut, random_updates, relative, sgd, without_silent
from learner.adapters import adapted, merged

import fastgrpo.learner.deepspeed as adapter
from fastgrpo.config import LossConfig
from fastgrpo.learner.deepspeed import DeepSpeedLearner
from fastgrpo.rollout.push import Expected, Stream

LOSS = LossConfig(type="dr_grpo")
SCALING = 32 / 4


def check_exact(path, zero, recompute, packs, sequences):
    """Gradients, and the weights handed out after an update, against the formula in float64; the base keeps its bits."""
    plain, twin = float64_model(path), fresh(path)
    right = adapted(plain)
    want = naive_result(right, None, [sequences], LOSS, sgd)
    expected, start = Expected.of(twin, twin.named_parameters()), {name: tensor.clone() for name, tensor in twin.named_parameters()}
    learned = adapted(twin)
    adapted_names = {name.replace(".base_layer", "") for name, _ in learned.named_parameters() if name.endswith("base_layer.weight")}
    learner, gradients = DeepSpeedLearner(learned, LOSS, TEMPERATURE, lambda update: 1.0, 1e9, settings(zero, recompute=recompute), sgd), []
    record_gradients(learner, gradients)
    norm = learner.update(packs)[1]
    assert abs(norm / want.norms[0] - 1) < 1e-5
    assert relative(gradients[0], want.gradients[0]) < 1e-5
    found = {name: tensor.detach().clone() for name, tensor in Stream(learner.named_weights(), expected)}
    for name, value in merged(plain, right, SCALING).items():
        assert (found[name].double() - value).norm() <= 1e-5 * value.norm(), (zero, name)
        assert (name in adapted_names) != torch.equal(found[name], start[name]), (zero, name)


def state_masters(learner):
    return [tensor.clone() for name, tensor in learner.state() if name.startswith("master/")]


def check_low_precision(path, zero, packs):
    """In bfloat16 the base keeps its bits, and updates far below the adapters' rounding add up in their masters."""
    model = fresh(path, "bfloat16")
    start = {name: tensor.clone() for name, tensor in model.named_parameters()}
    learner = DeepSpeedLearner(adapted(model), LOSS, TEMPERATURE, lambda update: 1e-6, 1.0, settings(zero))
    masters = state_masters(learner)
    for _ in range(3):
        learner.update(packs)
    moved = [(now - then).abs().max() for now, then in zip(state_masters(learner), masters, strict=True)]
    assert all(master.dtype == torch.float32 for master in masters) and 1e-6 < max(moved) < 4e-6
    untouched = {name: tensor.clone() for name, tensor in learner.named_weights() if "proj.weight" not in name}
    assert untouched and all(torch.equal(tensor, start[name]) for name, tensor in untouched.items())


def main(path: str) -> None:
    with ranks() as (rank, size):
        rng = random.Random(7)
        sequences = random_updates(rng, LOSS, updates=1)[0]
        packs = float32(random_cut(without_silent(sequences, LOSS), 5, rng))[rank::size]
        adapter.GATHERED = 30_000
        for zero in range(4):
            for recompute in (False, True):
                check_exact(path, zero, recompute, packs, sequences)
            if zero:
                check_low_precision(path, zero, packs)
        if rank == 0:
            print("all checked")


if __name__ == "__main__":
    main(*sys.argv[1:])
