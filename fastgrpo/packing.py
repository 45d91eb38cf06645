"""Sequences into packs without padding: each sequence whole in one pack, each pack at most `tokens_per_pack` tokens.

Targets are shifted here and nowhere else. A sequence longer than the budget gets a pack of its own: the budget
bounds memory and speed, and cannot change a result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from fastgrpo.balance import Cost, schedule_packs
from fastgrpo.types import PackedBatch, TrainingSequence


def pack(sequences: Sequence[TrainingSequence], tokens_per_pack: int, dtype: torch.dtype = torch.float32) -> list[PackedBatch]:
    """Cuts sequences into packs for one rank, longest first, each into the first pack with room (first-fit decreasing).

    `dtype` is that of advantages, scale and log-probs: float32, or float64 for exact comparisons.
    """
    (packs,) = schedule_packs([len(sequence) for sequence in sequences], tokens_per_pack, 1, Cost(1, 0))
    return [pack_one([sequences[index] for index in own], dtype) for own in packs]


def pack_one(sequences: Sequence[TrainingSequence], dtype: torch.dtype = torch.float32) -> PackedBatch:
    """Lays sequences end to end. Each contributes its prompt and response but the last token, which is only a target."""
    input_ids, targets, positions, mask, lengths = [], [], [], [], []
    advantages, scale, sampler_logprobs = [], [], []
    for sequence in sequences:
        tokens = (*sequence.prompt_ids, *sequence.response_ids)
        before, after = len(sequence.prompt_ids) - 1, len(sequence.response_ids)
        lengths.append(len(sequence))
        input_ids += tokens[:-1]
        targets += tokens[1:]
        positions += range(len(sequence))
        mask += [False] * before + [True] * after
        advantages += [0.0] * before + [sequence.advantage] * after
        scale += [0.0] * before + [sequence.scale] * after
        sampler_logprobs += [0.0] * before + list(sequence.sampler_logprobs)
    return PackedBatch(
        input_ids=torch.tensor(input_ids),
        targets=torch.tensor(targets),
        position_ids=torch.tensor(positions),
        loss_mask=torch.tensor(mask),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        max_seqlen=max(lengths),
        advantages=torch.tensor(advantages, dtype=dtype),
        scale=torch.tensor(scale, dtype=dtype),
        sampler_logprobs=torch.tensor(sampler_logprobs, dtype=dtype),
    )


def split(batch: PackedBatch) -> tuple[PackedBatch, PackedBatch]:
    """Two packs of about equally many tokens with the same sequences in the same order, each with its complete factor still.

    Raises ValueError for a pack of one sequence.
    """
    bounds = batch.cu_seqlens.tolist()
    if len(bounds) < 3:
        raise ValueError("split: a pack of one sequence has no parts")
    middle = min(range(1, len(bounds) - 1), key=lambda place: abs(2 * bounds[place] - bounds[-1]))
    return _part(batch, bounds[: middle + 1]), _part(batch, bounds[middle:])


def _part(batch: PackedBatch, bounds: list[int]) -> PackedBatch:
    """The sequences between some successive ones of a pack's cu_seqlens."""
    rows = {name: tensor[bounds[0] : bounds[-1]] for name, tensor in batch.tensors().items()}
    rows["cu_seqlens"] = torch.tensor(bounds, dtype=torch.int32) - bounds[0]
    return dataclasses.replace(batch, **rows, max_seqlen=int(rows["cu_seqlens"].diff().max()))
