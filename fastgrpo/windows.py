"""Tokenised texts as the sequences of pretraining: cut to the model's context, drawn by epoch, divided into optimizer updates.

What surprises: consecutive windows of a text share one token, the last target of one and the first input of the next. So each token of
a text but its first is predicted exactly once, wherever the text is cut.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy

from fastgrpo.ranks import Ranks
from fastgrpo.types import TrainingSequence

BATCH = 1000  # texts that are given to the tokenizer at once


@dataclass(frozen=True, slots=True)
class Windows:
    """`tokens` (N,) int32 of all texts, end to end. Window i reads `lengths[i]` tokens from `starts[i]`, and predicts the token after each.

    `texts` counts the texts, `cut` those that were too long for one window.
    """

    tokens: numpy.ndarray
    starts: Sequence[int]
    lengths: Sequence[int]
    texts: int
    cut: int

    def __getitem__(self, window: int) -> list[int]:
        start = self.starts[window]
        return self.tokens[start : start + self.lengths[window] + 1].tolist()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def predicted(self) -> int:
        """Tokens that one epoch predicts."""
        return sum(self.lengths)


def encode(texts: Iterable[Sequence[str]], tokenizer) -> Iterator[list[int]]:
    """The tokens of each text: its parts, each tokenised by itself and without special tokens as prompts are, and one end of sequence."""
    texts = iter(texts)
    while batch := list(islice(texts, BATCH)):
        parts = iter(tokenizer([part for text in batch for part in text], add_special_tokens=False)["input_ids"])
        for text in batch:
            yield [token for _ in text for token in next(parts)] + [tokenizer.eos_token_id]


def make_windows(texts: Sequence[Sequence[str]], tokenizer, context: int, ranks: Ranks) -> Windows:
    """Windows of at most `context` tokens to read. Each rank tokenises a part of the texts; all get all."""
    first, last = (len(texts) * rank // ranks.size for rank in (ranks.rank, ranks.rank + 1))
    tokens, lengths = array("i"), []
    for ids in encode(texts[first:last], tokenizer):
        tokens.extend(ids)
        lengths.append(len(ids))
    gathered = ranks.gather((tokens, lengths))
    tokens = numpy.concatenate([numpy.frombuffer(own, numpy.int32) for own, _ in gathered])
    lengths = [length for _, own in gathered for length in own]
    starts, sizes, begin = [], [], 0
    for length in lengths:
        for start in range(0, length - 1, context):
            starts.append(begin + start)
            sizes.append(min(context, length - 1 - start))
        begin += length
    return Windows(tokens, starts, sizes, len(lengths), sum(length - 1 > context for length in lengths))


def count_updates(windows: Windows, epochs: int, tokens_per_update: int) -> int:
    """As many as have `tokens_per_update` predicted tokens each, at least one."""
    return max(1, epochs * windows.predicted // tokens_per_update)


def draw_updates(lengths: Sequence[int], epochs: int, seed: int, updates: int) -> Iterator[list[int]]:
    """The windows of each update: every epoch a permutation of its own, all of them cut into `updates` parts of nearly equal tokens.

    Update k begins with the first window that begins at or after token k * total / updates. A function of its arguments alone.
    """
    total, position, number, own = epochs * sum(lengths), 0, 0, []
    for epoch in range(epochs):
        for window in random.Random(f"{seed}/texts {epoch}").sample(range(len(lengths)), len(lengths)):
            if position * updates // total > number:
                yield own
                number, own = number + 1, []
            own.append(window)
            position += lengths[window]
    yield own


def text_sequences(texts: Sequence[Sequence[int]]) -> list[TrainingSequence]:
    """Tokenised texts of one update as sequences with a loss on every token but the first: advantage 1, scale 1 / (all those tokens).

    With these and no old policy, the policy gradient of every token is the gradient of its cross-entropy. The sampler's log-prob is 0,
    that of certainty, so that the distance of log-probs from the sampler's is the cross-entropy in nats.
    """
    scale = 1.0 / sum(len(text) - 1 for text in texts)
    return [TrainingSequence(tuple(text[:1]), tuple(text[1:]), (0.0,) * (len(text) - 1), 1.0, scale) for text in texts]
