"""What each of two ranks checks beside exactness: clipping, gradients that are not finite, momentum, state, weights for an engine.

mechanics_program.py TIED_MODEL UNTIED_MODEL some|all, under torchrun. Every check asserts on every rank. `some` is ZeRO 3 in bfloat16.
"""

import dataclasses
import math
import random
import sys

import torch
from deepspeed_runs import float32, fresh, ranks, settings
from exactness import random_cut, random_updates, sgd

import fastgrpo.learner.deepspeed as adapter
from fastgrpo.config import LossConfig
from fastgrpo.errors import HealthError, InputError
from fastgrpo.learner.deepspeed import DeepSpeedLearner
from fastgrpo.learner.native import NativeLearner, adamw
from fastgrpo.model import model_logprobs
from fastgrpo.rollout.push import Expected, Stream
from fastgrpo.rollout.shared_weights import become_views, engine_name, lay_out, require_same_memory

LOSS = LossConfig(type="dr_grpo")


def learner(path, zero, dtype="float32", lr=1e-2, clip=math.inf, make=adamw, **others):
    lr_at = lr if callable(lr) else lambda update: lr
    return DeepSpeedLearner(fresh(path, dtype), LOSS, 1.0, lr_at, clip, settings(zero, **others), make)


def bits(one) -> list:
    return [tensor.detach().clone() for _, tensor in one.named_weights()]


def same(some: list, others: list) -> bool:
    return all(map(torch.equal, some, others))


def masters(one) -> list:
    return [tensor.clone() for name, tensor in one.state() if name.startswith("master/")]


def check_clipping(path, zero, dtype, packs):
    free, clipped = learner(path, zero, dtype, 1.0, make=sgd), learner(path, zero, dtype, 1.0, clip=1e-2, make=sgd)
    start = masters(clipped)
    norm = free.update(packs)[1]
    assert norm > 0.02 and abs(clipped.update(packs)[1] / norm - 1) < 1e-6
    moved = sum((master - old).square().sum() for master, old in zip(masters(clipped), start, strict=True))
    assert abs(moved.sqrt().item() / 1e-2 - 1) < 1e-3


def check_not_finite(path, zero, dtype, packs, rank, **others):
    """One rank's loss is not a number: all raise, none steps."""
    one = learner(path, zero, dtype, **others)
    one.update(packs)
    before = bits(one)
    spoiled = [dataclasses.replace(batch, scale=batch.scale * math.nan) if rank == 1 else batch for batch in packs]
    try:
        one.update(spoiled)
        raise AssertionError("no HealthError")
    except HealthError as error:
        assert "update 1: the gradient norm is not finite; no weight was changed" in str(error)
    assert same(before, bits(one))
    assert math.isfinite(one.update(packs)[1])


def check_updates(path, zero, dtype, packs, rank):
    """Momentum without packs, the schedule, and packs on one rank only."""
    one = learner(path, zero, dtype)
    stats, _ = one.update(packs if rank == 0 else [])
    assert len(stats) == (len(packs) if rank == 0 else 0) and all(part["kept"] > 0 for part in stats)
    before = bits(one)
    assert one.update([]) == ([], 0.0)
    assert not same(before, bits(one))
    used = []
    one = learner(path, zero, dtype, lambda update: 0.1 * (update + 1), make=sgd)
    one.optimizer.register_step_pre_hook(lambda *_: used.append(round(one.optimizer.param_groups[0]["lr"], 6)))
    for _ in range(3):
        one.update([])
    assert sorted(set(used)) == [0.1, 0.2, 0.3]


def copied(one) -> dict:
    return {name: tensor.clone() for name, tensor in one.state()}


def check_state(path, zero, dtype, packs, **others):
    """Save, two updates, restore: the same two updates, bit for bit, in the same learner and in a new one."""
    one = learner(path, zero, dtype, **others)
    one.update(packs)
    saved, at = copied(one), bits(one)
    for _ in range(2):
        one.update(packs)
    want = bits(one)
    for other in (one, learner(path, zero, dtype, **others)):
        other.load_state(saved, 1)
        assert same(at, bits(other)) and other.updates == 1
        for _ in range(2):
            other.update(packs)
        assert same(want, bits(other))
    again = copied(one)
    assert again.keys() == saved.keys() and {name.partition("/")[0] for name in saved} == {"master", "exp_avg", "exp_avg_sq", "step"}
    wrong = {name: tensor for name, tensor in saved.items() if not name.endswith("norm.weight")}
    try:
        one.load_state(wrong, 1)
        raise AssertionError("no InputError")
    except InputError as error:
        assert "of another model" in str(error) and "norm.weight" in str(error)


def check_state_before_any_update(path, zero, dtype, packs):
    one = learner(path, zero, dtype)
    saved = copied(one)
    one.update(packs)
    want = bits(one)
    other = learner(path, zero, dtype)
    other.load_state(saved, 0)
    other.update(packs)
    assert same(want, bits(other))


def check_any_engine_goes_on(path, packs, rank):
    """One engine's state in the next, all around: the same weights, moments and next update, but for the rounding of sums over ranks."""
    makers = [lambda zero=zero: learner(path, zero, "bfloat16") for zero in (1, 2, 3)]
    makers.append(lambda: NativeLearner(fresh(path, "bfloat16"), LOSS, 1.0, lambda update: 1e-2, math.inf))
    for make, following in zip(makers, makers[1:] + makers[:1], strict=True):
        one = make()
        for _ in range(2):
            one.update(packs)
        saved = copied(one)
        one.update(packs)
        want = torch.cat([tensor.flatten() for tensor in masters(one)])
        other = following()
        other.load_state(saved, 2)
        assert all(torch.equal(tensor, saved[name]) for name, tensor in copied(other).items())
        other.update(packs)
        moved = torch.cat([tensor.flatten() for tensor in masters(other)]) - want
        assert moved.norm() / want.norm() < 1e-4


def check_logprobs(path, zero, dtype, packs, rank):
    one, plain = learner(path, zero, dtype), fresh(path, dtype)
    mine = packs[rank:]  # one pack fewer on rank 1
    got = one.logprobs(mine)
    assert len(got) == len(mine)
    for values, batch in zip(got, mine, strict=True):
        assert torch.equal(values, model_logprobs(plain, batch, 1.0))


def check_push(path, zero, dtype):
    """All weights, once, whole, by the model's own names, in several buckets."""
    plain = fresh(path, dtype)
    expected, one = Expected.of(plain, plain.named_parameters()), learner(path, zero, dtype)
    adapter.GATHERED = 30_000
    wanted = dict(plain.named_parameters())
    stream = Stream(one.named_weights(), expected)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in stream)
    assert stream.bytes == sum(tensor.numel() * tensor.element_size() for tensor in wanted.values())
    if zero == 3:
        assert all(parameter.numel() == 0 for parameter in one.model.parameters())
        assert len(list(adapter._buckets(adapter.plain_weights(one.model)))) > 3


class FusedModel(torch.nn.Module):
    """What an engine has: one tensor where the learner has several, and vocabularies rounded up to 64 rows."""

    def __init__(self, model):
        super().__init__()
        self.tensors, parts = {}, {}
        for name, parameter in model.named_parameters():
            parts.setdefault(engine_name(name), []).append(parameter)
        for name, members in parts.items():
            rows = sum(member.shape[0] for member in members)
            rows = -(-rows // 64) * 64 if "embed_tokens" in name or "lm_head" in name else rows
            self.tensors[name] = torch.nn.Parameter(torch.zeros(rows, *members[0].shape[1:], dtype=members[0].dtype))

    def named_parameters(self):
        return self.tensors.items()


def check_shared_memory(path, zero, dtype, packs):
    """An engine built on the learner's weights sees every update; the layout survives, with nothing to move."""
    one = learner(path, zero, dtype)
    addresses = [parameter.data_ptr() for parameter in one.model.parameters()]
    lay_out(one.model)
    assert addresses == [parameter.data_ptr() for parameter in one.model.parameters()]
    engine = FusedModel(one.model)
    become_views(engine, one.model)
    before = bits(one)
    for _ in range(3):
        one.update(packs)
        require_same_memory(engine, one.model)
        parts: dict[str, list] = {}
        for name, parameter in one.model.named_parameters():
            parts.setdefault(engine_name(name), []).append(parameter.detach())
        for name, members in parts.items():
            rows = sum(member.shape[0] for member in members)
            assert torch.equal(engine.tensors[name][:rows], torch.cat(members)), name
    assert not same(before, bits(one))
    one.load_state(copied(one), one.updates)
    require_same_memory(engine, one.model)


STAGES = {
    "some": [(3, "bfloat16")],
    "all": [(0, "float32"), *[(zero, dtype) for zero in (1, 2, 3) for dtype in ("float32", "bfloat16")]],
}
OFFLOADED = {"some": [], "all": [(2, "optimizer"), (3, "all")]}


def main(tied: str, untied: str, extent: str) -> None:
    with ranks() as (rank, size):
        assert size == 2
        packs = float32(random_cut(random_updates(random.Random(3), LOSS)[0], 3, random.Random(3)))
        packs = [dataclasses.replace(batch, scale=batch.scale * 20) for batch in packs]
        for zero, dtype in STAGES[extent]:
            check_clipping(tied, zero, dtype, packs)
            check_not_finite(tied, zero, dtype, packs, rank)
            check_updates(tied, zero, dtype, packs, rank)
            check_state(tied, zero, dtype, packs)
            check_state_before_any_update(tied, zero, dtype, packs)
            check_logprobs(tied, zero, dtype, packs, rank)
            check_push(untied, zero, dtype)
            if zero in (1, 2):
                for path in (tied, untied):
                    check_shared_memory(path, zero, dtype, packs)
        check_any_engine_goes_on(tied, packs, rank)
        for zero, offload in OFFLOADED[extent]:
            check_state(tied, zero, "bfloat16", packs, offload=offload)
            check_not_finite(tied, zero, "float32", packs, rank, offload=offload)
        if rank == 0:
            print("all checked")


if __name__ == "__main__":
    main(*sys.argv[1:])
