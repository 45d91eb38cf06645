"""How far a run has come: all that the loop needs to know beside weights and optimizer, as it stands in each checkpoint.

Data order and sampling seeds are functions of the config's seed and the step, so that the number of a step is their whole state.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """`step` rollout batches were learned from, in `updates` optimizer updates; `evaluated` is the last step with an evaluation.

    `best` is (step, metric); `rows` counts lines of metrics.jsonl; `seconds` were spent by earlier processes; `tokens_per_pack` is what
    fitted into memory, where the configured budget did not; `evaluations` are the first and the latest, by "first" and "last"; the
    others count what the health of a run depends on, in a row.
    """

    step: int = 0
    updates: int = 0
    evaluated: int = -1
    best: tuple[int, float] | None = None
    rows: int = 0
    seconds: float = 0.0
    silent_steps: int = 0
    unscorable_steps: int = 0
    skipped_updates: int = 0
    tokens_per_pack: int | None = None
    evaluations: dict = field(default_factory=dict)

    def budget(self, tokens_per_pack: int) -> int:
        """Tokens of a pass: as configured, or fewer where those did not fit into memory."""
        return min(tokens_per_pack, self.tokens_per_pack or tokens_per_pack)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Progress:
        values = json.loads(text)
        return cls(**values | {"best": values["best"] and tuple(values["best"])})
