"""The sizes of a vLLM engine. Importing this loads neither torch nor vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """All explicit, so that ranks agree and nothing depends on what else lives on the card.

    `context` is the most tokens of prompt and response together; `sequences` the most decoded at once; `cache_bytes` the KV cache of
    one device; `weights` "auto" shares them where it can. `fp32_head` computes the logits of a bfloat16 model in float32.
    """

    context: int
    sequences: int
    cache_bytes: int
    weights: Literal["auto", "shared", "push"] = "auto"
    tensor_parallel: int = 1
    fp32_head: bool = True
