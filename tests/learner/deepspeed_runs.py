"""What the DeepSpeed programs share: the exactness test's update through DeepSpeedLearner, in float32, at any ZeRO stage and cut."""

import contextlib
import dataclasses
import json
import math
import os
import sys

import torch
import torch.distributed as dist
from exactness import LR, TEMPERATURE, Result, flat, gradient_errors, relative, trained

from fastgrpo.config_sections import LearnerConfig
from fastgrpo.learner.deepspeed import DeepSpeedLearner
from fastgrpo.learner.native import adamw
from fastgrpo.model import load_model


def settings(zero: int, **others) -> LearnerConfig:
    return LearnerConfig(engine="deepspeed", zero=zero, **others)


def float32(packs):
    """The packs of the exactness test with float32 numbers instead of float64."""
    names = ("advantages", "scale", "sampler_logprobs")
    return [dataclasses.replace(batch, **{name: getattr(batch, name).float() for name in names}) for batch in packs]


def weights(learner) -> torch.Tensor:
    return torch.cat([tensor.detach().double().reshape(-1) for _, tensor in learner.named_weights()])


def record_gradients(learner, gradients: list) -> None:
    """Keeps the whole gradient, as it stands when the optimizer is called."""
    import deepspeed.utils  # after the learner has prepared its surroundings

    step = learner.engine.step

    def recording():
        parameters = trained(learner.model)
        full = (parameter.grad if learner.settings.zero == 0 else deepspeed.utils.safe_get_full_grad(parameter) for parameter in parameters)
        gradients.append(flat(full))
        step()

    learner.engine.step = recording


def honest(packs):
    return packs


def deepspeed_result(model, updates, loss, make_optimizer, config, plant=honest, share=honest, spoil=None) -> Result:
    """As exactness.learner_result. `spoil` changes the learner itself."""
    lr, gradients, norms, filled = LR if make_optimizer is adamw else 1.0, [], [], []
    learner = DeepSpeedLearner(model, loss, TEMPERATURE, lambda update: lr, math.inf, config, make_optimizer)
    record_gradients(learner, gradients)
    if spoil is not None:
        spoil(learner)
    start = weights(learner)
    for number, packs in enumerate(updates):
        packs = float32(share(plant(packs)))
        if number > 0:
            old = learner.logprobs(packs)
            packs = [batch.with_logprobs(old_logprobs=values) for batch, values in zip(packs, old, strict=True)]
        filled.append(packs)
    for packs in filled:
        norms.append(learner.update(packs)[1])
    return Result(gradients, norms, weights(learner) - start)


def forget_the_ranks(learner) -> None:
    learner.ranks = 1


def forget_the_last_pass(learner) -> None:
    learner.engine.set_gradient_accumulation_boundary = lambda last: None


def compare(got: Result, want: Result | None) -> dict[str, float]:
    """Errors on rank 0, which alone knows the naive result."""
    return {} if want is None else gradient_errors(got, want)


def adamw_error(got: Result, want: Result | None) -> float:
    return 0.0 if want is None else relative(got.delta, want.delta)


def fresh(model_directory: str, dtype: str = "float32"):
    return load_model(model_directory, dtype)


@contextlib.contextmanager
def ranks():
    """Meets the other ranks, if a launcher started any; all leave together and at once, as gloo's threads abort at teardown otherwise."""
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    yield int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def write(rank: int, output: str, found: dict) -> None:
    if rank == 0:
        with open(output, "w") as file:
            json.dump(found, file)
