"""Sampling with the learner's own module: no copy of the weights, so nothing can drift, and the oracle for faster engines.

A decode loop of our own over the transformers model and cache, because three things matter here: every response has its own seed
(the same tokens whatever shares the batch), a prompt is read once for its G responses, and finished rows leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgrpo.model import head_weight
from fastgrpo.rollout import OnFinished
from fastgrpo.rollout.choice import choose_tokens, uniform_numbers
from fastgrpo.types import Prompt, Rollout, Sampling

SEQUENCES_AT_ONCE = 1024  # bounds the cache, which takes 3 KiB a token in the built-in model
SCORES_AT_ONCE = 2**24  # prompts times the square of the widest: bounds what reading them takes, some 64 MiB for each attention head
COMPACT_BELOW = 0.8  # finished rows are dropped once fewer than this share of the rows is alive: a gather costs about one decode step


@dataclass(slots=True)
class _Rows:
    """The rows still being decoded: `ids` index the responses of the chunk, `valid` (rows, width + steps) marks real tokens."""

    ids: Tensor
    valid: Tensor
    positions: Tensor
    alive: Tensor

    def keep(self, rows: Tensor) -> None:
        self.ids, self.valid, self.positions, self.alive = self.ids[rows], self.valid[rows], self.positions[rows], self.alive[rows]


class NativeEngine:
    """Implements RolloutEngine on the learner's module; `tokenizer` decodes texts and names the end-of-sequence ids.

    `own` says that the module is the learner's, and changes with it; else it is a copy, which takes new weights.
    """

    def __init__(self, model: nn.Module, tokenizer, own: bool = True):
        self.model, self.own = model, own
        self.tokenizer = tokenizer
        self.eos_ids = end_of_sequence_ids(model, tokenizer)

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        on_finished: OnFinished | None = None,
        on_token: Callable[[int, int, int], None] | None = None,
    ) -> list[tuple[Rollout, ...]]:
        """See RolloutEngine. Log-probs are float32, of the full softmax at the sampling temperature (greedy: at 1).

        `on_token` is told each token as it is drawn: prompt index, sample index, token id.
        """
        found: dict[tuple[int, int], Rollout] = {}
        for chunk in _chunks([len(prompt.token_ids) for prompt in prompts], n):
            keys = [(i, j) for i in chunk for j in range(n)]

            def finish(row: int, rollout: Rollout, keys=keys) -> None:
                found[keys[row]] = rollout
                if on_finished is not None:
                    on_finished(*keys[row], rollout)

            def hear(row: int, token: int, keys=keys) -> None:
                on_token(*keys[row], token)

            heard = None if on_token is None else hear
            self._generate_chunk([prompts[i] for i in chunk], n, sampling, [seeds[i][j] for i, j in keys], finish, heard)
        return [tuple(found[i, j] for j in range(n)) for i in range(len(prompts))]

    @torch.no_grad()
    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copies all into a copy; the learner's own module has them."""
        if self.own:
            return
        mine = dict(self.model.named_parameters())
        for name, tensor in weights:
            mine[name].copy_(tensor)

    def sleep(self) -> None:
        """Nothing to give back: the cache lives for one call."""

    def metrics(self) -> dict:
        """Nothing to report."""
        return {}

    def close(self) -> None:
        """Nothing to end."""

    @torch.inference_mode()
    def _generate_chunk(self, prompts: Sequence[Prompt], n: int, sampling: Sampling, seeds: Sequence[int], finish, hear) -> None:
        steps, device = sampling.max_new_tokens, self.model.device
        uniforms = torch.stack([uniform_numbers(seed, steps) for seed in seeds]).to(device)
        weight = head_weight(self.model).T
        weight = weight if weight.dtype == torch.float64 else weight.float()
        hidden, cache, rows = self._prefill(prompts, n, steps)
        tokens = torch.zeros(len(seeds), steps, dtype=torch.int64, device=device)
        logprobs = torch.zeros(len(seeds), steps, dtype=torch.float64, device=device)
        width = rows.valid.shape[1] - steps
        for step in range(steps):
            logits = hidden.to(weight.dtype) @ weight
            chosen, logprob = choose_tokens(logits, sampling.temperature, uniforms[rows.ids, step], len(self.tokenizer))
            tokens[rows.ids, step], logprobs[rows.ids, step] = chosen, logprob.double()
            if hear is not None:
                for row, token in zip(rows.ids[rows.alive].tolist(), chosen[rows.alive].tolist(), strict=True):
                    hear(row, token)
            ended = self._ended(chosen, tokens[rows.ids, : step + 1], sampling.stop)
            done = rows.alive & (ended if step + 1 < steps else torch.ones_like(ended))
            for row, stopped in zip(rows.ids[done].tolist(), ended[done].tolist(), strict=True):
                finish(row, self._rollout(tokens[row, : step + 1], logprobs[row, : step + 1], stopped))
            rows.alive &= ~done
            alive = int(rows.alive.sum())
            if alive == 0:
                return
            if alive < COMPACT_BELOW * len(rows.alive):
                kept = rows.alive.nonzero()[:, 0]
                cache.batch_select_indices(kept)
                rows.keep(kept)
                chosen = chosen[kept]
            rows.valid[:, width + step] = True
            mask = rows.valid[:, None, None, : width + step + 1]
            hidden = self._forward(chosen[:, None], rows.positions[:, None] + step, mask, cache)

    def _prefill(self, prompts: Sequence[Prompt], n: int, steps: int):
        """Reads each prompt once, left-padded to the widest, then repeats its cache for n responses."""
        from fastgrpo.rollout.cache import growing_cache

        device, width = self.model.device, max(len(prompt.token_ids) for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(prompt.token_ids)) + list(prompt.token_ids) for prompt in prompts], device=device)
        lengths = torch.tensor([len(prompt.token_ids) for prompt in prompts], device=device)
        valid = torch.arange(width, device=device) >= width - lengths[:, None]
        causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        mask = (causal & valid[:, None, :]) | torch.eye(
            width, dtype=torch.bool, device=device
        )  # a padded row sees itself: no empty softmax
        positions = (valid.long().cumsum(1) - 1).clamp(min=0)
        cache = growing_cache(self.model.config)
        hidden = self._forward(ids, positions, mask[:, None], cache)
        cache.batch_repeat_interleave(n)
        count = len(prompts) * n
        room = torch.zeros(count, steps, dtype=torch.bool, device=device)
        alive = torch.ones(count, dtype=torch.bool, device=device)
        rows = _Rows(
            torch.arange(count, device=device), torch.cat([valid.repeat_interleave(n, 0), room], 1), lengths.repeat_interleave(n), alive
        )
        return hidden.repeat_interleave(n, 0), cache, rows

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor, cache) -> Tensor:
        output = self.model.base_model(input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True)
        return output.last_hidden_state[:, -1]

    def _ended(self, chosen: Tensor, tokens: Tensor, stop: tuple[str, ...]) -> Tensor:
        """Which rows just sampled an end-of-sequence id, or completed a stop string."""
        ended = torch.isin(chosen, torch.tensor(self.eos_ids, device=chosen.device))
        if stop:
            tail = max(len(text.encode()) for text in stop) + 4  # a token may start before the string
            texts = self.tokenizer.batch_decode(tokens[:, -tail:])
            ended |= torch.tensor([any(text in tail_text for text in stop) for tail_text in texts], device=chosen.device)
        return ended

    def _rollout(self, tokens: Tensor, logprobs: Tensor, stopped: bool) -> Rollout:
        ids = tuple(tokens.tolist())
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Rollout(ids, tuple(logprobs.tolist()), "stop" if stopped else "length", text)


def _chunks(lengths: Sequence[int], n: int) -> Iterator[list[int]]:
    """Prompts that are decoded together, shortest first: similar lengths share little left padding, and long ones little company."""
    chunk: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if chunk and ((len(chunk) + 1) * n > SEQUENCES_AT_ONCE or (len(chunk) + 1) * lengths[i] ** 2 > SCORES_AT_ONCE):
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk


def end_of_sequence_ids(model: nn.Module, tokenizer) -> list[int]:
    """Every id that ends a response: a model may name several, its tokenizer one more."""
    listed = model.generation_config.eos_token_id
    ids = listed if isinstance(listed, list) else [listed]
    return sorted({id for id in (*ids, tokenizer.eos_token_id) if id is not None})
