"""Rewards from Python functions of the user's own, written as for TRL: `def f(prompts, completions, **columns) -> list[float | None]`.

A call serves one group of responses in a worker process with a deadline. Whatever goes wrong there makes responses unscorable, with the
reason; it never becomes a reward of 0. What a function prints is lost: it should raise, or write to a file.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from fastgrpo.errors import InputError, SetupError
from fastgrpo.rewards import worker
from fastgrpo.rewards.nursery import START_SECONDS, TaskFailed, TaskTimeout, WorkerDied
from fastgrpo.rewards.processes import Processes
from fastgrpo.types import Prompt, Rollout


@dataclass(frozen=True, slots=True)
class Unscorable:
    """Why a response has no reward. All failures of one cause share a `kind`; the `reason` may hold more detail."""

    kind: str
    reason: str


Score = float | Unscorable


class Functions:
    """Reward functions, each FILE.py:NAME, in worker processes that have loaded all of them; `deadline` is in seconds for one call.

    Raises InputError for what is not FILE.py:NAME or names no file; `check` tells whether the files import.
    """

    def __init__(self, functions: Sequence[str], deadline: float, workers: int):
        self._deadline = deadline
        self._places = {function: _place(function) for function in functions}
        self._processes = Processes(workers, f"{worker.__name__}:prepare_nothing", (_load_all, tuple(self._places.values())))

    def check(self) -> None:
        """Imports every file in a worker. Raises InputError where that fails, takes START_SECONDS, or yields no function of the name."""
        for function, place in self._places.items():
            try:
                problem = self._processes.schedule(START_SECONDS, _problem, *place).result()
            except (TaskTimeout, WorkerDied, TaskFailed, SetupError) as error:
                problem = f"its file cannot be imported: {error}"
            if problem:
                raise InputError(f"reward.function {function}: {problem}")

    def submit(self, function: str, inputs: Mapping[str, list]) -> Future:
        """Starts one call with the columns that `columns` made; the future is for `scores`."""
        path, name = self._places[function]
        return self._processes.schedule(self._deadline, call, path, name, dict(inputs))

    def scores(self, future: Future, count: int) -> list[Score]:
        """Waits for a call: one score for each of its `count` responses."""
        try:
            return future.result()
        except (TaskTimeout, WorkerDied, TaskFailed, SetupError) as error:
            return [Unscorable(str(error), str(error))] * count

    def close(self) -> None:
        self._processes.close()


def columns(prompt: Prompt, rollouts: Sequence[Rollout]) -> dict[str, list]:
    """What a reward function is given for a group: lists with an entry for each response, by name.

    prompts (the question's text), completions (text), completion_ids (token ids), truncated (bool), and the columns of the data row;
    `answer` is the gold where no column has that name.
    """
    return {
        "answer": [prompt.answer] * len(rollouts),
        **{name: [value] * len(rollouts) for name, value in prompt.columns.items()},
        "prompts": [prompt.problem] * len(rollouts),
        "completions": [rollout.text for rollout in rollouts],
        "completion_ids": [list(rollout.token_ids) for rollout in rollouts],
        "truncated": [rollout.truncated for rollout in rollouts],
    }


def read_rewards(given: object, count: int) -> list[Score]:
    """Checks what a reward function or server returned: a list, tuple, or one-dimensional array of `count` finite numbers or None."""
    given = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(given, (list, tuple)):
        problem = f"returned {type(given).__name__} instead of a list of {count} rewards"
        return [Unscorable(problem, problem)] * count
    if len(given) != count:
        problem = f"returned {len(given)} rewards for {count} responses"
        return [Unscorable(problem, problem)] * count
    return [_read_reward(reward) for reward in given]


def _read_reward(reward: object) -> Score:
    if reward is None:
        return Unscorable("returned None", "returned None")
    try:
        number = float(reward.item() if hasattr(reward, "item") else reward) if _is_number(reward) else None
    except Exception:  # the object's own conversion: too large an integer, an array of several numbers
        number = None
    if number is None:
        return Unscorable(f"returned {type(reward).__name__}", f"returned {type(reward).__name__} {reward!r:.80} as a reward")
    if not math.isfinite(number):
        return Unscorable("returned a number that is not finite", f"returned {number} as a reward")
    return number + 0.0  # makes -0.0 an ordinary 0


def _is_number(reward: object) -> bool:
    return isinstance(reward, Real) or hasattr(reward, "item")


def _place(function: str) -> tuple[str, str]:
    """(absolute path, name) of FILE.py:NAME."""
    file, _, name = function.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"reward.function {function}: write FILE.py:NAME, for example rewards.py:accuracy, or verifier")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"reward.function {function}: there is no file {path}")
    return str(path), name


# What follows runs in worker processes.


@functools.cache
def load(path: str) -> dict:
    """The names that a file defines, imported once for each worker; its directory is open for imports. Raises what the file raises."""
    directory = str(Path(path).parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    name = f"reward functions of {path}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    spec.loader.exec_module(module)
    return vars(module)


def _load_all(*places: tuple[str, str]) -> None:
    """So that loading does not count against the first call's deadline; what fails here fails again, and is reported, in the call."""
    for path, _ in places:
        try:
            load(path)
        except (Exception, SystemExit):
            continue


def _problem(path: str, name: str) -> str | None:
    """Why a function cannot be called; None where it can."""
    try:
        names = load(path)
    except (Exception, SystemExit) as error:
        return f"its file cannot be imported: {_failure(error, path).reason}"
    if name not in names:
        return f"{path} has no {name}"
    return None if callable(names[name]) else f"{name} is {type(names[name]).__name__}, not a function"


def call(path: str, name: str, inputs: dict[str, list]) -> list[Score]:
    """One call of a user's function, awaited where it is async; it gets those of the columns that its signature names."""
    count = len(inputs["completions"])
    try:
        function = load(path)[name]
        result = function(**_accepted(function, inputs))
        if inspect.isawaitable(result):
            result = asyncio.run(_await(result))
        return read_rewards(result, count)
    except (Exception, SystemExit) as error:
        return [_failure(error, path)] * count


async def _await(result):
    return await result


def _accepted(function: Callable, inputs: dict[str, list]) -> dict[str, list]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return inputs
    return {parameter.name: inputs[parameter.name] for parameter in parameters if parameter.name in inputs}


def _failure(error: BaseException, path: str) -> Unscorable:
    """What was raised, and the innermost line of the user's own file that led there."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    at = f" at {Path(path).name}:{own[-1].lineno}" if own else ""
    line = f": {own[-1].line}" if own and own[-1].line else ""
    if isinstance(error, SyntaxError):
        at, line = f" at {Path(str(error.filename)).name}:{error.lineno}", ""
    message = " ".join(str(error).split())
    return Unscorable(f"{type(error).__name__}{at}", f"{type(error).__name__}: {message:.300}{at}{line}")
