"""The reward of a response: the verifier's alone, or a weighted sum of the verifier, functions of the user's own, and a server.

The verifier gets each response as it ends; functions and server get a group at once, when the last of its responses is there.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from fastgrpo.rewards.functions import Functions, Score, Unscorable, columns
from fastgrpo.rewards.pool import Grader
from fastgrpo.rewards.remote import Remote
from fastgrpo.types import Grade, Prompt, Rollout

VERIFIER, URL = "verifier", "url"
MAX_KINDS = 100  # of failures that are told apart, so that messages with changing numbers in them do not fill a log

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the rewards that are added up; `source` is VERIFIER, URL, or FILE.py:NAME."""

    name: str
    source: str
    weight: float


class Scorer:
    """Gives rewards to the responses of a step. Use as a context manager, or call `close`; the grader stays open, it is the caller's.

    `functions` are FILE.py:NAME or "verifier", which stands for the grader; without functions and url, the grader decides alone.
    `weights` has one number for each function, then one for the url, or is empty, which is 1 for each. `deadline` is in seconds for
    one call of a function or of the url, `workers` the processes that run functions. `say` is told the first failure of each kind.
    Raises InputError for a missing file and a url that is none, ValueError for weights of another number; `require_rewards` looks closer.
    """

    def __init__(
        self,
        grader: Grader,
        functions: Sequence[str],
        url: str,
        weights: Sequence[float],
        samples_per_prompt: int,
        deadline: float = 60.0,
        workers: int = 2,
        say: Callable[[str], None] = _log.warning,
    ):
        self.grader, self._samples, self._say = grader, samples_per_prompt, say
        self._parts = _parts(functions, url, weights)
        self._alone = not functions and not url
        self._graded = any(part.source == VERIFIER for part in self._parts)
        own = sorted(set(functions) - {VERIFIER})
        self._functions = Functions(own, deadline, workers) if own else None
        self._remote = Remote(url, deadline) if url else None
        self._lock = threading.Lock()
        self._groups: dict[int, tuple[Prompt, dict[int, Rollout]]] = {}
        self._calls: dict[int, dict[str, Future]] = {}
        self._reasons: dict[tuple[str, str], list] = {}

    @property
    def reasons(self) -> dict[str, int]:
        """Why responses were unscorable: the first message of each kind, with the number of responses so far."""
        return dict(self._reasons.values())

    def submit(self, i: int, j: int, prompt: Prompt, rollout: Rollout) -> None:
        """Takes response j to prompt i, in any order and from any thread; what can be scored already is started.

        Raises ValueError for a response that was submitted before, or a j that is not below samples_per_prompt.
        """
        with self._lock:
            group = self._groups.setdefault(i, (prompt, {}))[1]
            if j in group or not 0 <= j < self._samples:
                raise ValueError(f"Scorer.submit: response {j} to prompt {i}: each of 0 to {self._samples - 1} is submitted once")
            group[j] = rollout
            if self._graded:
                self.grader.submit((i, j), rollout.text, prompt.answer)
            if len(group) == self._samples:
                self._calls[i] = self._start(prompt, [group[j] for j in range(self._samples)])

    def results(self) -> dict[tuple[int, int], Grade]:
        """The grade of every response submitted since the last call, by (i, j). Every wait in it ends with a deadline.

        Raises ValueError when a group is incomplete, SetupError when the grader's workers cannot be kept alive.
        """
        with self._lock:
            groups, self._groups = self._groups, {}
            calls, self._calls = self._calls, {}
            verdicts = self.grader.results() if self._graded else {}
            if lacking := sorted(set(groups) - set(calls)):
                raise ValueError(f"Scorer.results: prompt {lacking[0]} has {len(groups[lacking[0]][1])} of {self._samples} responses")
            if self._alone:
                return verdicts
            grades = {}
            for i, (_, rollouts) in groups.items():
                scores = [self._scores(part, i, calls[i], verdicts) for part in self._parts]
                for j in range(self._samples):
                    grades[i, j] = self._grade(rollouts[j], verdicts.get((i, j)), [score[j] for score in scores])
            return grades

    def close(self) -> None:
        """Ends the processes and calls of functions and url; uncollected results are lost."""
        for part in (self._functions, self._remote):
            if part is not None:
                part.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _start(self, prompt: Prompt, rollouts: Sequence[Rollout]) -> dict[str, Future]:
        """The calls of one group, by the part's name."""
        inputs, calls = columns(prompt, rollouts), {}
        for part in self._parts:
            if part.source == URL:
                calls[part.name] = self._remote.submit(inputs)
            elif part.source != VERIFIER:
                calls[part.name] = self._functions.submit(part.source, inputs)
        return calls

    def _scores(self, part: _Part, i: int, calls: Mapping[str, Future], verdicts: Mapping[tuple[int, int], Grade]) -> list[Score]:
        """What one part says of the responses to prompt i, in their order. Waits for its call."""
        if part.source == VERIFIER:
            return [verdicts[i, j].reward for j in range(self._samples)]
        service = self._remote if part.source == URL else self._functions
        return service.scores(calls[part.name], self._samples)

    def _grade(self, rollout: Rollout, verdict: Grade | None, scores: Sequence[Score]) -> Grade:
        """The weighted sum of one response; without a reward where one of its parts has none."""
        values: dict[str, float | None] = {}
        for part, score in zip(self._parts, scores, strict=True):
            values[part.name] = None if isinstance(score, Unscorable) else score
            if isinstance(score, Unscorable):
                self._note(part.name, score)
        formatted = self.grader.formatted(rollout.text) if verdict is None else verdict.formatted
        if None in values.values():
            return Grade(None, formatted, "unscorable", values)
        total = sum(part.weight * values[part.name] for part in self._parts)
        return Grade(total, formatted, "ok" if verdict is None else verdict.status, values)

    def _note(self, name: str, failure: Unscorable) -> None:
        """Counts a failure; the first of its kind is told."""
        kind = (name, failure.kind if len(self._reasons) < MAX_KINDS or (name, failure.kind) in self._reasons else "")
        if kind not in self._reasons:
            message = f"reward {name}: {failure.reason}"
            self._reasons[kind] = [message, 0]
            self._say(f"{message} (responses are left without a reward; further failures of this kind are only counted)")
        self._reasons[kind][1] += 1


def require_rewards(functions: Sequence[str], url: str) -> None:
    """Imports every function's file, in a process of its own, and looks at the url, which is not called.

    Raises InputError where a file is missing or does not import, has no such function, or the url is no http(s) address.
    """
    if url:
        Remote(url, deadline=1.0).close()
    if own := [function for function in functions if function != VERIFIER]:
        with contextlib.closing(Functions(own, deadline=1.0, workers=1)) as loaded:
            loaded.check()


def _parts(functions: Sequence[str], url: str, weights: Sequence[float]) -> tuple[_Part, ...]:
    """Raises ValueError for weights of another number."""
    sources = [*functions, *([URL] if url else [])] or [VERIFIER]
    if weights and len(weights) != len(sources):
        raise ValueError(f"Scorer: {len(weights)} weights for {len(sources)} rewards")
    parts: list[_Part] = []
    for source, weight in zip(sources, weights or (1.0,) * len(sources), strict=True):
        own = source.rpartition(":")[2]
        taken = {part.name for part in parts} | ({VERIFIER, URL} if own != source else set())  # a function may be called url, too
        names = (own if number == 1 else f"{own}_{number}" for number in itertools.count(1))
        parts.append(_Part(next(name for name in names if name not in taken), source, weight))
    return tuple(parts)
