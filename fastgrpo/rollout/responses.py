"""What an engine returned for one request, checked before anyone believes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastgrpo.types import Rollout


class BadResponse(ValueError):
    """An engine's answer that is no response: what is wrong with it."""


def checked_rollout(
    token_ids: Sequence[int], logprobs: Sequence[float | None], finish_reason: str | None, text: str, known: int
) -> Rollout:
    """The rollout, or BadResponse: no tokens, ids outside the `known` ones, a log-prob missing or not a number, or no end."""
    if not token_ids:
        raise BadResponse("no tokens")
    if len(logprobs) != len(token_ids) or any(logprob is None for logprob in logprobs):
        given = sum(logprob is not None for logprob in logprobs)
        raise BadResponse(f"{given} log-probs for {len(token_ids)} tokens")
    if strange := [logprob for logprob in logprobs if not math.isfinite(logprob) or logprob > 1e-3]:
        raise BadResponse(f"a log-prob of {strange[0]}: are the weights finite?")
    if strange := [token for token in token_ids if not 0 <= token < known]:
        raise BadResponse(f"token {strange[0]}, outside the tokenizer's {known}")
    if finish_reason not in ("stop", "length"):
        raise BadResponse(f"finish reason {finish_reason!r}")
    return Rollout(tuple(token_ids), tuple(logprobs), finish_reason, text)
