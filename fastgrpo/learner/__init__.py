"""What updates: the learners behind one interface. One call is one optimizer update, whatever the number of packs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from fastgrpo.types import PackedBatch

if TYPE_CHECKING:
    from torch import Tensor


class Learner(Protocol):
    """Owns the trained weights and their optimizer. With several ranks, each gives its own packs, and all make the same calls."""

    def logprobs(self, packs: Sequence[PackedBatch]) -> list[Tensor]:
        """Log-probs (T,) in nats of each pack's targets under the current policy, 0 outside the loss mask; no gradient."""

    def update(self, packs: Sequence[PackedBatch]) -> tuple[list[dict[str, float]], float]:
        """One optimizer update from the gradients of all packs of all ranks, added up; also from none, since momentum moves on.

        Returns the loss statistics of each pack (sums, counts, `*_max`), and the global gradient norm before clipping. Raises
        HealthError, and leaves the weights alone, where a gradient is not finite.
        """

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The working weights, named as in the model's state. Each is sure to be whole only until the next is asked for."""

    def state_dict(self) -> dict:
        """What load_state_dict needs to go on bit for bit, of this rank; live tensors that the next update changes."""

    def load_state_dict(self, state: dict) -> None: ...
