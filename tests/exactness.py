"""What the exactness tests share: random rollouts, the update written out naively, and the learner's update under any cut.

The naive form runs each response alone through the plain Hugging Face model in float64 and spells the loss out token by token; autograd
derives the gradient. The learner's form is the real path: packs, packed attention, fused loss, accumulation, optimizer.
"""

import dataclasses
import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from fastgrpo.advantages import group_advantages
from fastgrpo.config import LossConfig
from fastgrpo.learner.native import NativeLearner, adamw
from fastgrpo.loss import needs_all_sequences, token_scales
from fastgrpo.model import load_model, model_logprobs
from fastgrpo.packing import pack_one
from fastgrpo.types import PackedBatch, TrainingSequence

TEMPERATURE = 0.7
BUDGET = 20  # max_new_tokens
LR = 1e-3


def float64_model(path, seed: int = 0):
    """The model of a directory, a little perturbed, in float64 throughout: Hugging Face computes RMS norms in float32 otherwise."""
    model = load_model(str(path), "float64")
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = lambda x, m=module: m.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon)
    if seed:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


def random_updates(
    rng: random.Random, loss: LossConfig, groups: int = 4, group_size: int = 4, updates: int = 2
) -> list[list[TrainingSequence]]:
    """Rollouts of several groups, one of them all right, permuted and cut into updates as the trainer does it."""
    responses = []
    for number in range(groups):
        prompt = tuple(rng.randrange(1, 250) for _ in range(rng.randint(1, 9)))
        rewards = [1.0] * group_size if number == 0 else [1.0, 0.0] + [float(rng.random() < 0.5) for _ in range(group_size - 2)]
        for advantage in group_advantages(rewards, loss.type):
            response = tuple(rng.randrange(1, 250) for _ in range(rng.randint(1, 12)))
            responses.append((prompt, response, tuple(-5.5 + rng.gauss(0, 0.3) for _ in response), advantage))
    rng.shuffle(responses)
    size, parts = len(responses) // updates, []
    for start in range(0, len(responses), size):
        part = responses[start : start + size]
        masked = [loss.truncation == "mask" and len(response) == 12 for _, response, _, _ in part]
        scales = token_scales(loss.type, [len(response) for _, response, _, _ in part], masked, BUDGET)
        parts.append([TrainingSequence(*response, scale) for response, scale in zip(part, scales, strict=True)])
    return parts


def without_silent(sequences: list[TrainingSequence], loss: LossConfig) -> list[TrainingSequence]:
    return [s for s in sequences if needs_all_sequences(loss) or (s.advantage != 0 and s.scale != 0)]


def random_cut(sequences: list[TrainingSequence], packs: int, rng: random.Random) -> list[PackedBatch]:
    """Each sequence in a random one of `packs` packs, in random order."""
    shuffled = rng.sample(sequences, len(sequences))
    places = [rng.randrange(packs) for _ in shuffled]
    parts = [[s for s, place in zip(shuffled, places, strict=True) if place == number] for number in range(packs)]
    return [pack_one(part, torch.float64) for part in parts if part]


@dataclasses.dataclass
class Result:
    """Accumulated gradients and their norms of each update, and the change of all trained parameters over the updates; flat float64."""

    gradients: list[Tensor]
    norms: list[float]
    delta: Tensor


def flat(tensors) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])


def trained(model) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def naive_logprobs(model, sequence: TrainingSequence) -> tuple[Tensor, Tensor]:
    """Log-probs of the response's tokens and entropies at their places, one plain forward for one sequence."""
    ids = torch.tensor([sequence.prompt_ids + sequence.response_ids])
    model.set_attn_implementation("sdpa")  # its plain form: eager attention would take the softmax in float32
    logits = model(input_ids=ids, use_cache=False).logits[0, len(sequence.prompt_ids) - 1 : -1]
    table = (logits / TEMPERATURE).log_softmax(-1)
    targets = torch.tensor(sequence.response_ids)
    return table.gather(1, targets[:, None])[:, 0], -(table.exp() * table).sum(-1)


def naive_loss(model, sequence: TrainingSequence, old: Tensor | None, ref: Tensor | None, loss: LossConfig) -> Tensor:
    logprobs, entropy = naive_logprobs(model, sequence)
    old = logprobs.detach() if old is None else old
    ratio = (logprobs - old).exp()
    capped = loss.delta is not None and sequence.advantage < 0
    ratio_used = ratio.clamp(max=loss.delta) if capped else ratio
    tokens = torch.maximum(-sequence.advantage * ratio_used, -sequence.advantage * ratio.clamp(1 - loss.clip_low, 1 + loss.clip_high))
    if loss.tis_cap is not None:
        tokens = tokens * (old - torch.tensor(sequence.sampler_logprobs, dtype=torch.float64)).exp().clamp(max=loss.tis_cap)
    if loss.beta:
        gap = ref - logprobs
        tokens = tokens + loss.beta * (gap.exp() - gap - 1)
    return ((tokens - loss.entropy_coef * entropy) * sequence.scale).sum()


def naive_result(model, reference, updates, loss: LossConfig, make_optimizer) -> Result:
    """The update as the formula says it, one response at a time."""
    parameters, start = trained(model), flat(trained(model)).clone()
    optimizer, gradients, norms = make_optimizer(parameters), [], []
    for group in optimizer.param_groups:
        group["lr"] = LR if isinstance(optimizer, torch.optim.AdamW) else 1.0
    with torch.no_grad():
        old = [[None if number == 0 else naive_logprobs(model, s)[0] for s in part] for number, part in enumerate(updates)]
        ref = [[naive_logprobs(reference, s)[0] if loss.beta else None for s in part] for part in updates]
    for part, old_part, ref_part in zip(updates, old, ref, strict=True):
        optimizer.zero_grad(set_to_none=False)
        for sequence, o, r in zip(part, old_part, ref_part, strict=True):
            naive_loss(model, sequence, o, r, loss).backward()
        gradients.append(flat(parameter.grad for parameter in parameters))
        norms.append(gradients[-1].norm().item())
        optimizer.step()
    return Result(gradients, norms, flat(parameters) - start)


def learner_result(
    model,
    reference,
    updates: list[list[PackedBatch]],
    loss: LossConfig,
    make_optimizer,
    plant: Callable[[list[PackedBatch]], list[PackedBatch]] = lambda packs: packs,
    share: Callable[[list[PackedBatch]], list[PackedBatch]] = lambda packs: packs,
) -> Result:
    """The update through the learner. `plant` spoils the packs of each update; `share` picks those of this rank."""
    start, gradients = flat(trained(model)).clone(), []

    def recording(parameters):
        optimizer = make_optimizer(parameters)
        optimizer.register_step_pre_hook(lambda *_: gradients.append(flat(parameter.grad for parameter in parameters)))
        return optimizer

    lr = LR if make_optimizer is adamw else 1.0
    learner = NativeLearner(model, loss, TEMPERATURE, lambda update: lr, math.inf, recording)
    filled = []
    for number, packs in enumerate(updates):
        packs = [] if not packs else share(plant(packs))
        if number > 0:
            packs = [batch.with_logprobs(old_logprobs=learner.logprobs([batch])[0]) for batch in packs]
        if loss.beta:
            packs = [batch.with_logprobs(ref_logprobs=model_logprobs(reference, batch, TEMPERATURE)) for batch in packs]
        filled.append(packs)
    norms = []
    for packs in filled:
        for batch in packs:
            learner.backward(batch)
        norms.append(learner.step())
    return Result(gradients, norms, flat(trained(model)) - start)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1.0)


def relative(got: Tensor, want: Tensor) -> float:
    """Relative Frobenius distance."""
    return ((got - want).norm() / want.norm()).item()


def gradient_errors(got: Result, want: Result) -> dict[str, float]:
    """The bars (a), (b), (c): gradients before clipping, their norms, deltas after two SGD updates; relative, largest over updates."""
    return {
        "gradient": max(relative(g, w) for g, w in zip(got.gradients, want.gradients, strict=True)),
        "norm": max(abs(g - w) / w for g, w in zip(got.norms, want.norms, strict=True)),
        "delta": relative(got.delta, want.delta),
    }


def _scaled(factor: Callable[[PackedBatch, list[PackedBatch]], float | Tensor]):
    return lambda packs: [dataclasses.replace(batch, scale=batch.scale * factor(batch, packs)) for batch in packs]


PLANTED = {
    "loss times 2": _scaled(lambda batch, packs: 2.0),
    "loss over ranks": _scaled(lambda batch, packs: 0.5),
    "loss over micro-batches": _scaled(lambda batch, packs: 1.0 / len(packs)),
    "last micro-batch only": lambda packs: packs[-1:],
    "mean of each pack": _scaled(
        lambda batch, packs: torch.where(batch.scale > 0, 1 / (batch.scale.clamp(min=1e-30) * batch.loss_mask.sum()), 0)
    ),
}
