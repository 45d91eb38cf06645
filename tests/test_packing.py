"""Packs of one rank and of many hold the same sequences, each whole."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrpo.balance import Cost, schedule_packs
from fastgrpo.packing import pack, pack_one
from fastgrpo.types import TrainingSequence

lengths_drawn = st.lists(st.integers(1, 40), max_size=30)


def sequences_of(lengths):
    """Sequences that read `lengths` tokens each, told apart by their advantage."""
    return [TrainingSequence((1,), (2,) * length, (-1.0,) * length, number + 1.0, 0.5) for number, length in enumerate(lengths)]


def contents(batches):
    """(number, tokens) of every sequence in each pack."""
    parts = [batch.advantages.split(batch.cu_seqlens.diff().tolist()) for batch in batches]
    assert all(len(row.unique()) == 1 for rows in parts for row in rows)
    return [[(int(row[0]) - 1, len(row)) for row in rows] for rows in parts]


@settings(deadline=None, max_examples=60)
@given(lengths=lengths_drawn, tokens_per_pack=st.integers(1, 100))
def test_packs_are_filled_first_fit_from_the_longest_down(lengths, tokens_per_pack):
    want = []
    for number, length in sorted(enumerate(lengths), key=lambda item: -item[1]):
        fitting = (own for own in want if sum(n for _, n in own) + length <= tokens_per_pack)
        own = next(fitting, None)
        want.append([(number, length)]) if own is None else own.append((number, length))
    assert contents(pack(sequences_of(lengths), tokens_per_pack)) == want


@settings(deadline=None, max_examples=60)
@given(lengths=lengths_drawn, tokens_per_pack=st.integers(1, 100), ranks=st.integers(1, 5))
def test_the_shares_of_all_ranks_hold_every_sequence_whole_and_once(lengths, tokens_per_pack, ranks):
    sequences = sequences_of(lengths)
    schedule = schedule_packs([len(sequence) for sequence in sequences], tokens_per_pack, ranks, Cost(1, 0.01))
    batches = [pack_one([sequences[index] for index in own], torch.float64) for packs in schedule for own in packs if own]
    assert sorted(item for own in contents(batches) for item in own) == list(enumerate(lengths))
    assert sum(batch.tokens for batch in batches) == sum(lengths)
