"""What updates: the learners behind one interface. One call is one optimizer update, whatever the number of packs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from fastgrpo.types import PackedBatch

if TYPE_CHECKING:
    from torch import Tensor


class Learner(Protocol):
    """Owns the trained weights and their optimizer. With several ranks, each gives its own packs, and all make the same calls.

    `updates` counts the optimizer updates so far. `out_of_memory` are the tokens of passes that did not fit into memory and were made
    in parts, since someone last emptied it.
    """

    updates: int
    out_of_memory: list[int]

    def logprobs(self, packs: Sequence[PackedBatch]) -> list[Tensor]:
        """Log-probs (T,) in nats of each pack's targets under the current policy, 0 outside the loss mask; no gradient."""

    def update(self, packs: Sequence[PackedBatch]) -> tuple[list[dict[str, float]], float]:
        """One optimizer update from the gradients of all packs of all ranks, added up; also from none, since momentum moves on.

        Returns the loss statistics of each pack (sums, counts, `*_max`), and the global gradient norm before clipping. Raises
        NotFinite, and leaves the weights alone, where a gradient is not finite.
        """

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The working weights, named as in the model's state. Each is sure to be whole only until the next is asked for."""

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """What load_state needs to go on bit for bit, whole and by the names of parameters (fastgrpo.learner.state).

        Every rank iterates to the end. Each tensor is sure to be whole, and unchanged, only until the next is asked for.
        """

    def load_state(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Goes on as a learner that gave `state` after so many `updates`, on any number of ranks. Every rank calls it.

        Raises InputError for the state of another model.
        """
