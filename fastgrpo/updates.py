"""The optimizer updates of one rollout: which responses each learns from, with which factor, and the packs of them that fall to a rank."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastgrpo.balance import Cost, schedule_metrics, schedule_packs
from fastgrpo.loss import needs_all_sequences, token_scales
from fastgrpo.packing import pack_one
from fastgrpo.types import PackedBatch, ScoredGroup, TrainingSequence

if TYPE_CHECKING:
    from fastgrpo.config import Config
    from fastgrpo.config_pretrain import PretrainConfig
    from fastgrpo.ranks import Ranks


def cut_updates(groups: Sequence[ScoredGroup], step: int, config: Config) -> list[list[TrainingSequence]]:
    """The sequences of each update: responses permuted, cut into equal parts, each with its complete divisor. The same on every rank.

    Sequences without gradient (masked, or of zero advantage when nothing else pulls) are dropped after the divisor is known.
    """
    responses = [(group, j) for group in groups for j in range(len(group.rollouts))]
    random.Random(f"{config.seed}/permute {step}").shuffle(responses)
    size = len(responses) // config.updates_per_rollout
    keep_all = needs_all_sequences(config.loss)
    updates = []
    for start in range(0, len(responses), size):
        part = [(group.prompt, group.rollouts[j], group.advantages[j]) for group, j in responses[start : start + size]]
        lengths = [rollout.length for _, rollout, _ in part]
        masked = [config.loss.truncation == "mask" and rollout.truncated for _, rollout, _ in part]
        scales = token_scales(config.loss.type, lengths, masked, config.max_new_tokens)
        updates.append(
            [
                TrainingSequence(prompt.token_ids, rollout.token_ids, rollout.logprobs, advantage, scale)
                for (prompt, rollout, advantage), scale in zip(part, scales, strict=True)
                if keep_all or (advantage != 0 and scale != 0)
            ]
        )
    return updates


def own_share(
    sequences: Sequence[TrainingSequence], config: Config | PretrainConfig, cost: Cost, ranks: Ranks, tokens_per_pack: int
) -> tuple[list[PackedBatch], dict]:
    """This rank's packs of an update, none of them empty, and how well the packs of all ranks are filled and balanced."""
    from fastgrpo.model import DTYPES

    dtype = DTYPES["float64" if config.dtype == "float64" else "float32"]  # of advantages and log-probs
    lengths = [len(sequence) for sequence in sequences]
    schedule = schedule_packs(lengths, tokens_per_pack, ranks.size, cost)
    packs = [pack_one([sequences[index] for index in own], dtype) for own in schedule[ranks.rank] if own]
    return packs, schedule_metrics(schedule, lengths, tokens_per_pack, cost)
