"""From the settings to the amounts of a step: prompts, responses, updates, tokens, packs; all tokens are expectations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastgrpo.config import Config
from fastgrpo.errors import InputError
from fastgrpo.plan.lengths import response_lengths


@dataclass(frozen=True, slots=True)
class Batch:
    """Amounts of one step. A sequence is a prompt with its response; `lengths` are those of all responses, in tokens.

    `kept` is the share of responses that reach the learner; `kept_tokens` counts their sequences, `kept_squares` the sum of their
    squared lengths, which attention costs. `packs` are forward passes of one rank in one update.
    """

    prompts: int
    samples: int
    updates: int
    gpus: int
    prompt_tokens: float
    lengths: tuple[int, ...]
    kept: float
    kept_tokens: float
    kept_response_tokens: float
    kept_squares: float
    packs: int

    @property
    def responses(self) -> int:
        return self.prompts * self.samples

    @property
    def mean_length(self) -> float:
        return sum(self.lengths) / len(self.lengths)

    @property
    def truncated(self) -> float:
        """Share of responses as long as the budget allows."""
        return self.lengths.count(max(self.lengths)) / len(self.lengths)


def batch_of(config: Config, gpus: int, assume: Mapping[str, float]) -> Batch:
    """Raises InputError where so many GPUs cannot share a step."""
    tensor_parallel = config.rollout.tensor_parallel
    if gpus % tensor_parallel:
        raise InputError(f"--gpus {gpus} is no multiple of rollout.tensor_parallel={tensor_parallel}: every engine needs all its ranks")
    if gpus // tensor_parallel > config.prompts_per_step:
        raise InputError(
            f"--gpus {gpus}: a step has {config.prompts_per_step} prompts (prompts_per_step), so some would have nothing to do"
        )
    prompt = min(assume["prompt_tokens"], config.max_prompt_tokens)
    responses = config.prompts_per_step * config.samples_per_prompt
    lengths = response_lengths(responses, assume["mean_response_tokens"], assume["length_sigma"], config.max_new_tokens)
    keeps_all = config.loss.beta > 0 or config.loss.entropy_coef != 0
    kept = 1.0 if keeps_all else 1.0 - assume["zero_signal"]
    sequences = [prompt + length - 1 for length in lengths]
    tokens = kept * sum(sequences)
    per_rank = tokens / config.updates_per_rollout / gpus
    fullest = max(config.tokens_per_pack, max(sequences))
    return Batch(
        prompts=config.prompts_per_step,
        samples=config.samples_per_prompt,
        updates=config.updates_per_rollout,
        gpus=gpus,
        prompt_tokens=prompt,
        lengths=lengths,
        kept=kept,
        kept_tokens=tokens,
        kept_response_tokens=kept * sum(lengths),
        kept_squares=kept * sum(length**2 for length in sequences),
        packs=max(1, -int(-per_rank // fullest)),
    )


def words(batch: Batch, tokens_per_pack: int) -> list[str]:
    """The batch in sentences."""
    responses, size = batch.responses, batch.responses // batch.updates
    kept = f"{batch.kept:.0%} kept, the rest without signal" if batch.kept < 1 else "all kept"
    share = batch.kept_tokens / batch.updates / batch.gpus
    return [
        f"{batch.prompts} prompts x {batch.samples} samples = {responses:,} responses a step, {responses / batch.gpus:g} to each GPU",
        f"{batch.updates} updates x {size:g} responses = {responses:,}: each response is trained on once",
        f"a sequence has {batch.prompt_tokens:g} + {batch.mean_length:.0f} tokens on average; {batch.truncated:.1%} reach the budget",
        f"{batch.kept_tokens / 1e6:.2f} M tokens to learn from ({kept}), {share:,.0f} to each GPU in an update",
        f"{batch.packs} pack{'s' if batch.packs > 1 else ''} of at most {tokens_per_pack:,} tokens to each GPU in an update",
    ]
