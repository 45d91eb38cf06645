"""The same run for every trainer of `bench_step`: a random Qwen2, prompts of mixed lengths, and a reward that anyone can compute.

What surprises: lengths are mixed because many tokens end a response, a random model having no favourite; and the first contestant's
responses are written down, for the others to draw the very same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from step_problem import make_model
from torch import Tensor, nn

from fastgrpo.plan.shapes import Shape


@dataclass(frozen=True)
class Race:
    """A model and its run: `mean` tokens a response on average, but for `budget`; `silent` of ten groups have equal rewards.

    `rows` are the responses of a padded micro-batch, `tokens_per_pack` those of a pack.
    """

    shape: Shape
    prompts: int
    samples: int
    prompt_tokens: tuple[int, int]
    mean: int
    budget: int
    silent: int
    rows: int
    tokens_per_pack: int
    steps: int
    lr: float = 1e-3

    @property
    def responses(self) -> int:
        return self.prompts * self.samples

    def ending_tokens(self) -> list[int]:
        """The ids that end a response: so many of the vocabulary that a uniform draw takes `mean` tokens."""
        return list(range(max(1, self.shape.vocabulary // self.mean)))

    def prompt_ids(self) -> list[list[int]]:
        """The prompts of all steps, in order; none holds a token that ends a response."""
        draw, first = random.Random(0), len(self.ending_tokens()) + 1
        lengths = (draw.randint(*self.prompt_tokens) for _ in range(self.prompts * self.steps))
        return [[draw.randrange(first, self.shape.vocabulary) for _ in range(length)] for length in lengths]

    def reward(self, prompt: int, response: list[int]) -> float:
        return 0.0 if prompt % 10 < self.silent else float(sum(response) % 2)

    def model(self) -> nn.Module:
        model, _ = make_model(self.shape, "cpu", torch.float32)
        model.generation_config.eos_token_id = self.ending_tokens()
        return model

    def tokenizer(self):
        """A word a token, `w5` for 5; 0 ends and pads."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(self.shape.vocabulary)}, unk_token="w0"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w0")


RACES = {
    "toy": Race(Shape(64, 128, 2, 2, 1, 32, 300, 1, 1), 10, 4, (3, 12), 12, 24, 4, 8, 400, 3),
    "realistic": Race(Shape(128, 512, 4, 4, 2, 32, 32_000, 1, 1), 10, 8, (20, 120), 80, 200, 4, 16, 4096, 3),
}


def flat_weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
