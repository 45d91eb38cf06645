"""One learning step's model and responses: a Qwen2 of random weights, groups of realistic lengths, and their packs or padded rows.

What surprises: nothing is downloaded. A model of a known shape is drawn from a seed on the device itself, the same for everyone who
takes part, and so are prompts, responses, rewards and the noise that moves the policy away from the old one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace

import torch
from torch import Tensor

from fastgrpo.advantages import group_advantages
from fastgrpo.attention import choose, register_attention, this_machine
from fastgrpo.config import Config, load_config
from fastgrpo.model import head_dim, prepare, training_cost
from fastgrpo.plan.learning import forward_flops, head_flops
from fastgrpo.plan.lengths import response_lengths
from fastgrpo.plan.shapes import KNOWN, Shape
from fastgrpo.ranks import Ranks
from fastgrpo.types import Grade, PackedBatch, Prompt, Rollout, ScoredGroup
from fastgrpo.updates import cut_updates, own_share

NOISE = 0.1  # nats between old and present log-probs, a standard deviation: some ratios are clipped, as in a second update


@dataclass(frozen=True)
class Size:
    """A model and a step of it. Lengths in tokens, log-normal with `mean` and cut off at `budget`; `rows` of a padded micro-batch."""

    shape: Shape
    prompts: int
    samples: int
    prompt_tokens: tuple[int, int]
    mean: float
    budget: int
    tokens_per_pack: int
    rows: int
    steps: bool = True  # False: masters and moments do not fit beside the rest, so gradients are made and dropped


SIZES = {
    "toy": Size(Shape(64, 128, 2, 2, 1, 32, 300, 1, 1), 4, 4, (5, 12), 20, 40, 160, 4),
    "1.5b": Size(KNOWN["Qwen2.5-1.5B"], 12, 8, (80, 300), 800, 3000, 16_384, 4),
    "7b": Size(KNOWN["Qwen2.5-7B"], 6, 8, (80, 300), 800, 3000, 16_384, 4, steps=False),
}


def make_model(shape: Shape, device: str, dtype: torch.dtype, attention: str = "auto", seed: int = 0):
    """(model, the line that says which attention kernel it has), in eval mode, checked as every trained model is."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    register_attention()
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=bool(shape.tied),
        max_position_embeddings=32_768,
        dtype=dtype,
    )
    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    choice = choose(attention, this_machine(model.device), dtype, head_dim(model))
    model.set_attn_implementation(choice.implementation)
    return prepare(model), choice.line


@dataclass(frozen=True)
class Row:
    """A response as padded trainers see it: the ids, its advantage, and the noise (response tokens,) of its old log-probs."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    advantage: float
    noise: Tensor


class StepProblem:
    """The responses of one update. `silent` is the share of groups whose rewards are all alike: they have no gradient."""

    def __init__(self, size: Size, silent: float = 0.0, seed: int = 0):
        self.size, self.random = size, random.Random(seed)
        self.config = _config(size)
        lengths = response_lengths(size.prompts * size.samples, size.mean, 0.6, size.budget)
        self.groups = [
            self._group(index, lengths[index * size.samples : (index + 1) * size.samples], index < silent * size.prompts)
            for index in range(size.prompts)
        ]
        generator = torch.Generator().manual_seed(seed)
        self.rows = [
            Row(group.prompt.token_ids, rollout.token_ids, advantage, NOISE * torch.randn(rollout.length, generator=generator))
            for group in self.groups
            for rollout, advantage in zip(group.rollouts, group.advantages, strict=True)
        ]

    def _group(self, index: int, lengths: tuple[int, ...], silent: bool) -> ScoredGroup:
        def ids(count: int) -> tuple[int, ...]:
            return tuple(self.random.randrange(self.size.shape.vocabulary) for _ in range(count))

        prompt = Prompt(str(index), ids(self.random.randint(*self.size.prompt_tokens)), "1")
        rollouts = tuple(Rollout(ids(length), (0.0,) * length, "stop", "") for length in lengths)
        rewards = tuple(0.0 if silent else float(j % 2) for j in range(len(lengths)))
        grades = tuple(Grade(reward, True, "ok") for reward in rewards)
        return ScoredGroup(prompt, rollouts, grades, rewards, group_advantages(rewards, "dr_grpo"))

    def packs(self, model) -> list[PackedBatch]:
        """What the trainer makes of the step for one rank: silent groups dropped, sequences balanced over packs."""
        (update,) = cut_updates(self.groups, 0, self.config)
        return own_share(update, self.config, training_cost(model), Ranks(), self.config.tokens_per_pack)[0]

    def noise(self, packs: list[PackedBatch]) -> list[Tensor]:
        """(T,) of each pack, the noise of the very responses in it, 0 outside the mask."""
        of_response = {(*row.prompt, *row.response): row.noise for row in self.rows}
        found = []
        for batch in packs:
            values = torch.zeros(batch.tokens)
            for start, end in zip(batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True):
                ids = (*batch.input_ids[start:end].tolist(), batch.targets[end - 1].item())
                noise = of_response[ids]
                values[end - len(noise) : end] = noise
            found.append(values)
        return found

    def padded(self) -> list[list[Row]]:
        """All responses, silent ones too, in micro-batches of as many rows each, in an order that mixes lengths."""
        rows = random.Random(1).sample(self.rows, len(self.rows))
        return [rows[start : start + self.size.rows] for start in range(0, len(rows), self.size.rows)]

    @cached_property
    def tokens(self) -> int:
        """Tokens that a model reads in the whole step, without padding, silent groups too."""
        return sum(len(row.prompt) + len(row.response) - 1 for row in self.rows)

    def flops(self, old_pass: bool) -> float:
        """What the step needs by the formula of `fastgrpo plan`, whoever does it: 3 forward passes, one more for old log-probs.

        Of the responses with a gradient only; nothing is counted for recomputation or padding.
        """
        learned = [row for row in self.rows if row.advantage]
        lengths = [len(row.prompt) + len(row.response) - 1 for row in learned]
        batch = SimpleNamespace(
            kept_tokens=sum(lengths),
            kept_squares=sum(length**2 for length in lengths),
            kept_response_tokens=sum(len(row.response) for row in learned),
        )
        return (4 if old_pass else 3) * (forward_flops(self.size.shape, batch) + head_flops(self.size.shape, batch))


def _config(size: Size) -> Config:
    settings = {
        "prompts_per_step": size.prompts,
        "samples_per_prompt": size.samples,
        "updates_per_rollout": 1,
        "max_new_tokens": size.budget,
        "max_prompt_tokens": size.prompt_tokens[1],
        "tokens_per_pack": size.tokens_per_pack,
        "temperature": 1.0,
        "loss.type": "dr_grpo",
    }
    return load_config("tiny", [f"{key}={value}" for key, value in settings.items()]).config
