"""The rollout engine beside the learner: vLLM's answers turned into checked rollouts, fresh weights, and memory given back in between."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from fastgrpo.errors import FastgrpoError, InputError
from fastgrpo.rollout import OnFinished, Weights
from fastgrpo.rollout.native import end_of_sequence_ids
from fastgrpo.rollout.process_state import memory_mib, require_fixed_segments
from fastgrpo.rollout.responses import BadResponse, checked_rollout
from fastgrpo.rollout.states import EngineMemory
from fastgrpo.rollout.vllm import InProcessVllm
from fastgrpo.rollout.vllm_settings import VllmSettings
from fastgrpo.rollout.waking import wake_with_room
from fastgrpo.types import Prompt, Rollout, Sampling


class EngineError(FastgrpoError):
    """The engine cannot give what was asked for, although it was asked again."""


class VllmEngine:
    """Implements RolloutEngine. `model` names and shapes the weights, `tokenizer` the ids that exist; it starts with `weights`, those of
    the model itself unless the learner keeps them elsewhere.

    `pushed` is (bytes, seconds) of the last push, `ledger` the memory in MiB at the last boundary of each phase.
    """

    def __init__(self, model: nn.Module, tokenizer, settings: VllmSettings, weights: Weights | None = None):
        self.model, self.tokenizer, self.settings, self.weights = model, tokenizer, settings, weights or model.named_parameters
        self.memory, self.ledger, self.pushed = EngineMemory(), {"before engine": memory_mib()}, (0, 0.0)
        if model.dtype not in (torch.float32, torch.bfloat16):
            raise InputError(f"rollout.engine=vllm samples in float32 or bfloat16, not {model.dtype}: set dtype, or rollout.engine=native")
        if model.device.type == "cuda":
            require_fixed_segments(os.environ)
        self.vllm = InProcessVllm(model, self.weights, tokenizer, end_of_sequence_ids(model, tokenizer), settings)
        self.sleep_level = 0 if self.vllm.weights == "shared" else 2
        if self.sleep_level == 2 and self.vllm.on_gpu and not self._same_after_sleep():
            self.sleep_level = 1
        self.ledger["engine built"] = memory_mib()

    @property
    def beat(self) -> float:
        """time.monotonic() when the engine last came back from a decoding step, or was given work."""
        return self.vllm.beat

    def generate(
        self, prompts: Sequence[Prompt], n: int, sampling: Sampling, seeds: Sequence[Sequence[int]], on_finished: OnFinished | None = None
    ) -> list[tuple[Rollout, ...]]:
        """See RolloutEngine. Log-probs are float32, of the full softmax at the sampling temperature (greedy: at 1).

        Responses that fail their checks are asked for once more. Raises InputError for prompts that leave no room for the response,
        EngineError where a response is bad twice.
        """
        self._require_room(prompts, sampling)
        self._wake()
        self.memory.generate()
        longest_first = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].token_ids))
        wanted = [(i, j) for i in longest_first for j in range(n)]
        found: dict[tuple[int, int], Rollout] = {}
        for _ in range(2):
            asked, bad = wanted, {}

            def take(number: int, answers, asked=asked, bad=bad) -> None:
                key = asked[number]
                try:
                    found[key] = self._rollout(answers)
                except BadResponse as error:
                    bad[key] = str(error)
                    return
                if on_finished is not None:
                    on_finished(*key, found[key])

            self.vllm.draw([(prompts[i].token_ids, seeds[i][j]) for i, j in asked], sampling, take)
            wanted = [key for key in asked if key not in found]
            if not self.vllm.on_any_rank(bool(wanted)):
                self.ledger["generated"] = memory_mib()
                return [tuple(found[i, j] for j in range(n)) for i in range(len(prompts))]
        if not wanted:
            raise EngineError("vLLM answered badly, twice, on another rank")
        i, j = wanted[0]
        raise EngineError(
            f"vLLM answered badly, twice, for {len(wanted)} of {len(prompts) * n} responses; "
            f"prompt {prompts[i].id}, sample {j}: {bad.get((i, j), 'no answer at all')}"
        )

    def update_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See RolloutEngine. Shared weights are there already; in both ways keys and values of the old ones are dropped."""
        self.vllm.beat = time.monotonic()
        if self.vllm.weights == "shared":
            self.vllm.require_still_shared()
            self.memory.weights_changed()
        else:
            self._wake_weights()
            self.memory.begin_push()
            started = time.monotonic()
            size = self.vllm.load(weights)
            self.pushed = (size, time.monotonic() - started)
            self.memory.end_push()
        if self.memory.cache != "released":
            self._reset_cache()
        self.ledger["weights taken"] = memory_mib()

    def sleep(self) -> None:
        """See RolloutEngine. On a GPU the KV cache is released, and pushed weights too, at the level that proved right at the start."""
        self.vllm.beat = time.monotonic()
        if self.memory.awake:
            self.memory.sleep(self.sleep_level)
            self.vllm.sleep(self.sleep_level)
            self.ledger["asleep"] = memory_mib()

    def close(self) -> None:
        """Ends vLLM, so that another engine can be built."""
        self.vllm.close()

    def metrics(self) -> dict:
        """How weights come and why, the last push, the sleep level, the cache's size and how often it overflowed, memory; JSON types."""
        size, seconds = self.pushed
        return {
            "weights": self.vllm.weights,
            "weights_why": self.vllm.why,
            "pushed_mib": size / 2**20,
            "push_seconds": seconds,
            "sleep_level": self.sleep_level,
            "cache_tokens": self.vllm.cache_tokens,
            "preemptions": self.vllm.preemptions,
            "memory_mib": self.ledger,
        }

    def _rollout(self, answers: Sequence) -> Rollout:
        if len(answers) != 1:
            raise BadResponse(f"{len(answers)} answers to a request for one")
        ids, entries = answers[0].token_ids, answers[0].logprobs or []
        logprobs = [entry[token].logprob if token in entry else None for entry, token in zip(entries, ids, strict=False)]
        known = len(self.tokenizer)
        text = self.tokenizer.decode([token for token in ids if 0 <= token < known], skip_special_tokens=True)
        return checked_rollout(ids, logprobs, answers[0].finish_reason, text, known)

    def _require_room(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        for prompt in prompts:
            if len(prompt.token_ids) + sampling.max_new_tokens > self.settings.context:
                raise InputError(
                    f"prompt {prompt.id} of {len(prompt.token_ids)} tokens and max_new_tokens={sampling.max_new_tokens} exceed the rollout "
                    f"engine's context of {self.settings.context} tokens; lower max_prompt_tokens or max_new_tokens"
                )

    def _wake(self) -> None:
        if self.memory.weights == "discarded":
            self.update_weights(self.weights())
        self._wake_weights()
        if self.memory.cache == "released":
            wake_with_room(self.vllm.wake, "kv_cache", self.settings.cache_bytes / 2**20)
            self.memory.wake_cache()
            self._reset_cache()

    def _wake_weights(self) -> None:
        if self.memory.weights in ("offloaded", "discarded"):
            wake_with_room(self.vllm.wake, "weights", sum(parameter.nbytes for parameter in self.model.parameters()) / 2**20)
            self.memory.wake_weights()

    def _reset_cache(self) -> None:
        self.vllm.reset_cache()
        self.memory.reset_cache()

    def _same_after_sleep(self) -> bool:
        """Whether a probe reads the same before and after sleep, wake and push: some models keep more than weights where they sleep."""
        prompt, sampling = Prompt("probe", tuple(range(min(len(self.tokenizer), 16))), ""), Sampling(0.0, 8)
        ((before,),) = self.generate([prompt], 1, sampling, [[0]])
        self.sleep()
        ((after,),) = self.generate([prompt], 1, sampling, [[0]])
        gaps = [abs(a - b) for a, b in zip(before.logprobs, after.logprobs, strict=False)]
        return before.token_ids == after.token_ids and max(gaps) < 1e-3
