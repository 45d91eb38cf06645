"""What a colocated engine holds in memory, and which step may follow which: a wrong order raises, instead of sampling from garbage.

generate -> sleep -> (the learner trains) -> wake weights -> push -> wake KV cache -> reset prefix cache -> generate. With shared
weights the engine keeps no weights of its own: only the KV cache sleeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Weights = Literal["valid", "offloaded", "discarded", "unwritten", "half written"]
"""Unwritten memory is allocated again after a discard and holds anything; half written, while a push runs or after one that broke."""

Cache = Literal["valid", "stale", "released"]
"""A stale cache may hold keys and values of other weights."""


class IllegalTransition(RuntimeError):
    """A step of the engine that its memory does not allow now: a bug of the caller."""


@dataclass(slots=True)
class EngineMemory:
    """Weights and KV cache of one engine. Each method is a step: it checks, then records. Built awake, with the learner's weights."""

    weights: Weights = "valid"
    cache: Cache = "valid"

    @property
    def awake(self) -> bool:
        return self.cache != "released" and self.weights not in ("offloaded", "discarded")

    def generate(self) -> None:
        self._require("generate", self.weights == "valid" and self.cache == "valid")

    def sleep(self, level: int) -> None:
        """Level 0 releases the KV cache; 1 also moves the weights to the host; 2 also discards them."""
        self._require(f"sleep at level {level}", self.awake)
        if level:
            self.weights = "offloaded" if level == 1 and self.weights == "valid" else "discarded"
        self.cache = "released"

    def wake_weights(self) -> None:
        self._require("wake the weights", self.weights in ("offloaded", "discarded"))
        self.weights = "valid" if self.weights == "offloaded" else "unwritten"

    def begin_push(self) -> None:
        """From here to `end_push` the weights are neither the old nor the new ones."""
        self._require("push weights", self.weights not in ("offloaded", "discarded"))
        self.weights = "half written"
        self._outdate_cache()

    def end_push(self) -> None:
        self._require("end a push", self.weights == "half written")
        self.weights = "valid"

    def weights_changed(self) -> None:
        """The learner wrote the weights that both share."""
        self._require("take shared weights", self.weights == "valid")
        self._outdate_cache()

    def wake_cache(self) -> None:
        self._require("wake the KV cache", self.weights == "valid" and self.cache == "released")
        self.cache = "stale"

    def reset_cache(self) -> None:
        self._require("reset the prefix cache", self.cache != "released")
        self.cache = "valid"

    def _outdate_cache(self) -> None:
        if self.cache == "valid":
            self.cache = "stale"

    def _require(self, step: str, allowed: bool) -> None:
        if not allowed:
            raise IllegalTransition(f"the engine cannot {step} while its weights are {self.weights} and its KV cache is {self.cache}")
