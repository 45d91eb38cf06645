"""Sampling through an OpenAI-compatible server, for models too large to load here: texts in and out, so for evaluation only.

What would surprise: servers drop the stop string that ended a response. It is put back, since answer tags are part of the answer; where
a server does not say what stopped a response, a single stop string is assumed to have.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastgrpo.errors import InputError, SetupError
from fastgrpo.types import Completion, Prompt, Sampling

if TYPE_CHECKING:
    from openai import AsyncOpenAI

KEY_VARIABLE = "OPENAI_API_KEY"
SAID_CHARS = 300  # of an error that a server reports
RETRIES = 6  # with the client's growing pauses about half a minute in all
RETRIES_AT_THE_DOOR = 1  # whether there is a server at all should be known at once


class EndpointSampler:
    """Implements rollout.Sampler on the server at `url` (which usually ends in /v1). `chat` sends prompts as a user's message.

    `model` is the server's name of the model; "" takes the first one it lists. `timeout` in seconds for one response, which is asked for
    up to `retries` times more where the server is busy or fails. `failures_allowed` requests may then have failed for good: their
    responses are missing from what is returned. The key comes from the environment variable `key_variable`.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        chat: bool = False,
        concurrency: int = 64,
        timeout: float = 1800.0,
        retries: int = RETRIES,
        key_variable: str = KEY_VARIABLE,
    ):
        self.url, self.model, self.chat, self.concurrency, self.timeout, self.retries = url, model, chat, concurrency, timeout, retries
        self.key_variable, self.failures_allowed = key_variable, 0

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        on_finished: Callable[[int, int, Completion], None] | None = None,
    ) -> list[tuple[Completion, ...]]:
        """n responses to the text of each prompt. Raises SetupError when the server fails for good: what had ended was reported."""
        return asyncio.run(self._generate(prompts, n, sampling, seeds, on_finished))

    def model_name(self) -> str:
        """The server's name of the model. Raises SetupError when it cannot be asked, InputError when it has no such model."""
        return asyncio.run(self._model_name())

    async def _generate(self, prompts, n, sampling, seeds, on_finished) -> list[tuple[Completion, ...]]:
        found: dict[tuple[int, int], Completion] = {}
        failures: list[Exception] = []
        slots = asyncio.Semaphore(self.concurrency)

        async def one(client: AsyncOpenAI, i: int, j: int) -> None:
            async with slots:
                if len(failures) > self.failures_allowed:
                    return
                try:
                    completion = await self._complete(client, prompts[i].text, sampling, seeds[i][j])
                except Exception as error:  # whatever it is, the responses that are on their way should still be kept
                    failures.append(error)
                    return
            found[i, j] = completion
            if on_finished is not None:
                on_finished(i, j, completion)

        async with self._client(self.retries) as client:
            await asyncio.gather(*(one(client, i, j) for i in range(len(prompts)) for j in range(n)))
        if len(failures) > self.failures_allowed:
            raise self._explained(failures[0])
        return [tuple(found[i, j] for j in range(n) if (i, j) in found) for i in range(len(prompts))]

    async def _complete(self, client: AsyncOpenAI, text: str, sampling: Sampling, seed: int) -> Completion:
        settings = {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": 1.0,
            "seed": seed % 2**31,
        }
        if sampling.stop:
            settings["stop"] = list(sampling.stop)
        if self.chat:
            answer = await client.chat.completions.create(messages=[{"role": "user", "content": text}], **settings)
        else:
            answer = await client.completions.create(prompt=text, **settings)
        if not getattr(answer, "choices", None):  # the client hands on whatever came with status 200
            raise SetupError(f"{self.url} gave no completion but {self.without_key(str(answer))[:SAID_CHARS]!r}. {self._advice()}")
        if answer.usage is None:
            raise InputError(f"{self.url} does not report usage.completion_tokens, so lengths are unknown")
        choice = answer.choices[0]
        given = (choice.message.content if self.chat else choice.text) or ""
        given = given.encode("utf-8", "replace").decode()  # JSON can hold half a surrogate pair, a parquet file cannot
        reason = "length" if choice.finish_reason == "length" else "stop"
        if reason == "stop":
            given += _missing_stop(given, sampling.stop, getattr(choice, "stop_reason", "unsaid"))
        return Completion(given, answer.usage.completion_tokens, reason, getattr(answer.usage, "prompt_tokens", None) or 0)

    async def _model_name(self) -> str:
        async with self._client(RETRIES_AT_THE_DOOR) as client:
            try:
                names = [model.id async for model in client.models.list()]
            except Exception as error:
                raise self._explained(error) from error
        if not names or (self.model and self.model not in names):
            raise InputError(f"{self.url} has no model {self.model!r}; it lists {', '.join(names) or 'none'}")
        return self.model or names[0]

    def _client(self, retries: int) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=self.url, api_key=self._key() or "none", max_retries=retries, timeout=self.timeout)

    def _explained(self, error: Exception) -> Exception:
        from openai import OpenAIError

        if not isinstance(error, (OpenAIError, AttributeError)):  # the latter is how the client stumbles over a page that is no JSON
            return error
        cause = f": {error.__cause__}" if error.__cause__ else ""
        said = f"{error}{cause}"
        return SetupError(f"{self.url} failed: {type(error).__name__}: {self.without_key(said)[:SAID_CHARS]}. {self._advice()}")

    def without_key(self, text: str) -> str:
        """What may be shown or written of a server's words: it may repeat what it was sent."""
        return text.replace(self._key(), "(the key)") if self._key() else text

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "")

    def _advice(self) -> str:
        return f"It must be an OpenAI-compatible server, and {self.key_variable} hold its key if it wants one; what was answered is kept"


def _missing_stop(text: str, stop: tuple[str, ...], said: object) -> str:
    """The stop string to put back. `said` is what the server names as the reason: a stop string, or None or an id for an end token."""
    if any(text.endswith(string) for string in stop):
        return ""
    if said in stop:
        return str(said)
    return stop[0] if said == "unsaid" and len(stop) == 1 else ""
