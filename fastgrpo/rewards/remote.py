"""Rewards from a server of the user's own: one POST of JSON for each group of responses, answered by {"rewards": [...]}.

All calls share one thread with an event loop, so that a deadline really ends a call, even one whose server drips a byte a second.
Whatever goes wrong makes the group unscorable, with the reason; FASTGRPO_REWARD_TOKEN is sent as a bearer token and appears nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from fastgrpo.errors import InputError
from fastgrpo.rewards.functions import Score, Unscorable, read_rewards

TOKEN_VARIABLE = "FASTGRPO_REWARD_TOKEN"
MAX_CALLS = 16  # at once; more groups wait for their turn, which is when their deadline begins
MAX_BYTES = 16 * 2**20  # of an answer; a group's rewards need a few kilobytes
END_SECONDS = 10.0  # for calls to notice that they were cancelled
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds between tries, doubled each time


class _Failed(Exception):
    """A call that another try will not repair."""


class _Again(Exception):
    """A try that failed in a way that may pass; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class Remote:
    """A reward server. `deadline` is in seconds for one group, with all its tries.

    Raises InputError for a URL that is not http(s) or holds a password, or a token that cannot be sent.
    """

    def __init__(self, url: str, deadline: float):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"reward.url {parts.scheme or url}: it must begin with http:// or https:// and name a host")
        if parts.username is not None or parts.password is not None:
            raise InputError(
                "reward.url holds a name or password, which would be kept with the run's settings: remove it, and put a token that your "
                f"server takes as a bearer token into the environment variable {TOKEN_VARIABLE}"
            )
        self._url, self._deadline, self._token = url, deadline, os.environ.get(TOKEN_VARIABLE, "").strip()
        if not (self._token.isascii() and self._token.isprintable()):
            raise InputError(f"{TOKEN_VARIABLE} holds characters that no HTTP header can, such as a line break in the middle")
        self._loop = asyncio.new_event_loop()
        self._turns = asyncio.Semaphore(MAX_CALLS)
        self._client = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="reward-url")
        self._thread.start()

    def submit(self, inputs: Mapping[str, list]) -> Future:
        """Starts one call with the columns of a group (functions.columns); the future is for `scores`."""
        sent = {name: values for name, values in inputs.items() if name != "completion_ids"}
        body = json.dumps(sent, default=str).encode()
        return asyncio.run_coroutine_threadsafe(self._score(body, len(inputs["completions"])), self._loop)

    def scores(self, future: Future, count: int) -> list[Score]:
        """Waits for a call: one score for each of its `count` responses."""
        try:
            return future.result()
        except Exception as error:  # of whatever kind, it must not end a run
            return [Unscorable(type(error).__name__, f"{type(error).__name__}: {error}")] * count

    def close(self) -> None:
        """Ends all calls; their groups become unscorable."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(END_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _score(self, body: bytes, count: int) -> list[Score]:
        async with self._turns:
            last: list[str] = []
            try:
                rewards = await asyncio.wait_for(self._ask(body, last), self._deadline)
            except asyncio.TimeoutError:
                reason = f"no rewards within {self._deadline:g} s" + (f"; last: {last[-1]}" if last else "")
                return [Unscorable("no rewards within the deadline", reason)] * count
            except _Failed as error:
                return [Unscorable(str(error), str(error))] * count
        return read_rewards(rewards, count)

    async def _ask(self, body: bytes, last: list[str]) -> object:
        """Tries until there is an answer; `last` collects why tries failed. The caller's deadline ends it. Raises _Failed."""
        wait = FIRST_WAIT
        while True:
            try:
                return _rewards(await self._try(body))
            except _Again as error:
                last.append(str(error))
                await asyncio.sleep(max(wait, error.wait))
                wait = min(2 * wait, LONGEST_WAIT)

    async def _try(self, body: bytes) -> bytes:
        """The body of one answer with status 200. Raises _Again, _Failed."""
        import httpx2

        if self._client is None:  # here, since a client belongs to the loop it is used in
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            headers |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
            self._client = httpx2.AsyncClient(headers=headers, timeout=self._deadline, follow_redirects=False)
        try:
            async with self._client.stream("POST", self._url, content=body) as response:
                if response.status_code == 429 or response.status_code >= 500:
                    raise _Again(f"HTTP {response.status_code}", _retry_after(response.headers.get("Retry-After", "")))
                if response.status_code != 200:
                    raise _Failed(f"HTTP {response.status_code}")
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > MAX_BYTES:
                        raise _Failed(f"the answer is longer than {MAX_BYTES // 2**20} MiB")
                return bytes(answer)
        except httpx2.TransportError as error:
            raise _Again(f"{type(error).__name__}: {error}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _Failed(f"{type(error).__name__}: {error}") from None


def _rewards(answer: bytes) -> object:
    """What stands under "rewards". Raises _Failed where the answer is no JSON object with such a key."""
    try:
        answered = json.loads(answer)
    except (ValueError, RecursionError):
        raise _Failed("the answer is not JSON") from None
    if not isinstance(answered, dict) or "rewards" not in answered:
        raise _Failed('the answer is not a JSON object with "rewards"')
    return answered["rewards"]


def _retry_after(header: str) -> float:
    """Seconds that a Retry-After header asks to wait, given as seconds or as a date; 0 where it is neither."""
    if header.strip().isascii() and header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
