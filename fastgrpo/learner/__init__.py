"""What updates: the learners behind one interface. Gradients add up over `backward` calls until `step`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from fastgrpo.types import PackedBatch

if TYPE_CHECKING:
    from torch import Tensor


class Learner(Protocol):
    """Owns the trained weights and their optimizer."""

    def logprobs(self, batch: PackedBatch) -> Tensor:
        """Log-probs (T,) in nats of the targets under the current policy, 0 outside the loss mask; no gradient."""

    def backward(self, batch: PackedBatch) -> dict[str, float]:
        """Adds the gradient of one pack; returns the loss statistics (sums, counts, `*_max`)."""

    def step(self) -> float:
        """One optimizer update from all gradients since the last; returns their global norm before clipping."""

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The working weights, named as in the model's state."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...
