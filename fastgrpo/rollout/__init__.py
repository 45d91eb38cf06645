"""What samples: the engines behind one interface. Waking is implied by the next call, so the order of calls cannot be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from fastgrpo.types import Completion, Prompt, Rollout, Sampling

if TYPE_CHECKING:
    from torch import Tensor

Weights = Callable[[], "Iterable[tuple[str, Tensor]]"]
"""Where an engine reads the learner's weights; each tensor may be whole only until the next is asked for."""

OnFinished = Callable[[int, int, Rollout], None]
"""Called as each response ends, in any order: prompt index, sample index, the rollout."""


class Sampler(Protocol):
    """Draws responses, wherever the policy is: all that evaluation needs of it."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        on_finished: Callable[[int, int, Rollout | Completion], None] | None = None,
    ) -> Sequence[tuple[Rollout | Completion, ...]]:
        """See RolloutEngine; a response may be known by its text alone."""


class RolloutEngine(Protocol):
    """Draws responses from the current policy."""

    def generate(
        self, prompts: Sequence[Prompt], n: int, sampling: Sampling, seeds: Sequence[Sequence[int]], on_finished: OnFinished | None = None
    ) -> list[tuple[Rollout, ...]]:
        """n responses to each prompt, in order; seeds (prompts, n) fix each response whatever else is in the batch."""

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes the learner's weights, named as in the model's state."""

    def sleep(self) -> None:
        """Gives memory back until the next call."""

    def metrics(self) -> dict:
        """What a step should report of the engine, in types of JSON."""

    def close(self) -> None:
        """Ends the engine."""
