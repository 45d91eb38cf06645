"""Who takes part in a learning step: packs or padded rows, the fused head or full logits, and TRL's own loss. One learner for all.

Each has `old_logprobs()`, which computes and keeps them, and `backward()`, which leaves the gradient of the whole step in the learner and
returns the loss. The weights, the masters and the optimizer are the same NativeLearner's, so that what differs is the way to the
gradient. A package that is missing raises ImportError, which becomes a named skip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from step_problem import Row, StepProblem
from step_trl import Trl, TrlLiger
from torch import Tensor
from torch.nn import functional as F

from fastgrpo.learner.native import NativeLearner
from fastgrpo.model import head_weight, kept_hidden_states
from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs


class Packed:
    """fastgrpo as it trains: sequences end to end, gradients made in the forward pass of the head."""

    def __init__(self, problem: StepProblem, learner: NativeLearner):
        self.learner, self.packs = learner, problem.packs(learner.model)
        self.noise = problem.noise(self.packs)

    def old_logprobs(self) -> None:
        found = zip(self.packs, self.learner.logprobs(self.packs), self.noise, strict=True)
        self.packs = [batch.with_logprobs(old_logprobs=old + noise) for batch, old, noise in found]

    def backward(self) -> float:
        return sum(self.learner.backward(batch)["loss"] for batch in self.packs)


class PackedEager(Packed):
    """The same packs through full logits, as plain trainers write the loss."""

    def backward(self) -> float:
        total, model, settings = 0.0, self.learner.model, self.learner.loss
        for batch in self.packs:
            rows = batch.loss_mask
            targets, advantages, scale, old = (
                values[rows].to(model.device) for values in (batch.targets, batch.advantages, batch.scale, batch.old_logprobs)
            )
            logits = F.linear(kept_hidden_states(model, batch), head_weight(model)).float()
            ratio = (logits.log_softmax(-1).gather(1, targets[:, None])[:, 0] - old).exp()
            clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
            loss = -(scale * torch.minimum(ratio * advantages, clipped * advantages)).sum()
            del logits, ratio, clipped
            loss.backward()
            self.learner.take_gradients()
            total += loss.item()
        return total


class Padded:
    """One response a row, padded to the longest of its micro-batch, plain attention with a mask; the fused head on response rows."""

    def __init__(self, problem: StepProblem, learner: NativeLearner):
        learner.model.set_attn_implementation("sdpa")
        self.learner, self.settings = learner, {"clip_low": learner.loss.clip_low, "clip_high": learner.loss.clip_high}
        self.denominator = len(problem.rows) * problem.config.max_new_tokens
        self.batches = [right_padded(rows, learner.model.device) for rows in problem.padded()]

    def _hidden(self, batch: dict[str, Tensor]) -> Tensor:
        model = self.learner.model
        states = model.base_model(input_ids=batch["ids"], attention_mask=batch["attend"], use_cache=False).last_hidden_state
        return states[batch["rows"]]

    @torch.no_grad()
    def old_logprobs(self) -> None:
        for batch in self.batches:
            logprobs, _ = linear_logprobs(self._hidden(batch), head_weight(self.learner.model), batch["targets"], 1.0)
            batch["old"] = logprobs + batch["noise"]

    def backward(self) -> float:
        total = 0.0
        for batch in self.batches:
            loss = fused_linear_policy_loss(
                self._hidden(batch),
                head_weight(self.learner.model),
                batch["targets"],
                advantages=batch["advantages"],
                old_logprobs=batch["old"],
                denominator=self.denominator,
                temperature=1.0,
                **self.settings,
            ).loss
            loss.backward()
            self.learner.take_gradients()
            total += loss.item()
        return total


def right_padded(rows: list[Row], device: torch.device) -> dict[str, Tensor]:
    """ids, attend (R, L); rows (R, L) bool, true where the next token is of the response; targets, advantages, noise (M,) of those."""
    longest = max(len(row.prompt) + len(row.response) - 1 for row in rows)
    ids, attend, predicts = torch.zeros(len(rows), longest, dtype=torch.int64), *torch.zeros(2, len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens = (*row.prompt, *row.response)[:-1]
        ids[index, : len(tokens)] = torch.tensor(tokens)
        attend[index, : len(tokens)] = True
        predicts[index, len(row.prompt) - 1 : len(tokens)] = True
    batch = {
        "ids": ids,
        "attend": attend,
        "rows": predicts,
        "targets": torch.tensor([token for row in rows for token in row.response]),
        "advantages": torch.cat([torch.full((len(row.response),), row.advantage) for row in rows]),
        "noise": torch.cat([row.noise for row in rows]),
    }
    return {name: values.to(device) for name, values in batch.items()}


@dataclass(frozen=True)
class Entry:
    """A line of the table: the way to the gradient, and settings of the learner."""

    way: Callable[[StepProblem, NativeLearner], Packed | Padded | Trl] = Packed
    attention: str = "auto"
    recompute: bool = False
    compiled: bool = False


ENTRIES = {  # Liger last: it replaces functions of transformers' modules for the rest of the process
    "fastgrpo": Entry(),
    "TRL": Entry(Trl),
    "fastgrpo, recompute": Entry(recompute=True),
    "TRL, recompute": Entry(Trl, recompute=True),
    "fastgrpo, padded": Entry(Padded),
    "fastgrpo, full logits": Entry(PackedEager),
    "fastgrpo, torch.compile": Entry(compiled=True),
    "fastgrpo, attention sdpa": Entry(attention="sdpa"),
    "fastgrpo, attention varlen": Entry(attention="varlen"),
    "fastgrpo, attention flash2": Entry(attention="flash2"),
    "fastgrpo, attention flash4": Entry(attention="flash4"),
    "TRL, Liger": Entry(TrlLiger),
}
