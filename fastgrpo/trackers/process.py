"""The process of one tracker: reads messages as JSON lines, and answers each with one, "" or what went wrong.

First it answers, unasked, whether the tracker's package can be imported and used. At the end of its input it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

LINGERING_SECONDS = 120.0  # that a tracker may take to end when the run was killed
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class Service:
    """What the process does on each message, for the tracker `name` with the folder `home`."""

    def __init__(self, name: str, home: Path):
        self.name, self.home, self.tracker = name, home, None

    def answer(self, message: Mapping[str, object]) -> None:
        """Raises whatever goes wrong."""
        if "start" in message:
            from fastgrpo.trackers.adapters import TRACKERS

            self.home.mkdir(exist_ok=True)
            self.tracker = TRACKERS[self.name](self.home, **message["start"])
        elif "row" in message:
            self.tracker.row(*message["row"])
        elif self.tracker is not None:
            tracker, self.tracker = self.tracker, None
            tracker.finish(message.get("failed", True))


def serve(name: str, home: str) -> None:
    """A life of this process. Signals are the run's to handle, and what is printed is nobody's to read."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()
    answers = os.dup(1)
    os.dup2(2, 1)
    for variable, value in surroundings(Path(home)).items():
        os.environ.setdefault(variable, value)
    service = Service(name, Path(home))
    reply(answers, attempt(require_usable, name))
    for line in sys.stdin:
        reply(answers, attempt(service.answer, json.loads(line)))
    attempt(service.answer, {})  # the run was killed


def reply(answers: int, problem: str) -> None:
    """One answer, unless the run has died: what it had handed over before is still to be finished."""
    with contextlib.suppress(BrokenPipeError):
        os.write(answers, json.dumps(problem).encode() + b"\n")


def surroundings(home: Path) -> dict[str, str]:
    """Of a tracker's own variables, those that nobody set: what it writes stays in the run directory, and its makers hear nothing."""
    return {
        "WANDB_CACHE_DIR": str(home / "wandb" / "cache"),
        "WANDB_DATA_DIR": str(home / "wandb" / "data"),
        "WANDB_ERROR_REPORTING": "false",
        "TRACKIO_DIR": str(home / "trackio"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def require_usable(name: str) -> None:
    """What can be told before a run begins. Raises whatever is wrong."""
    import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        for needed in ("sqlalchemy", "alembic"):  # mlflow-skinny leaves these out, which its database needs
            import_module(needed)
    if name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online":
        netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        if not (os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or netrc.exists()):
            raise RuntimeError("it has no key: run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline")


def attempt(action: Callable[..., object], *arguments: object) -> str:
    """What went wrong in one line, without keys and passwords; "" if nothing did."""
    try:
        action(*arguments)
    except (Exception, SystemExit) as error:
        return hidden(" ".join(f"{type(error).__name__}: {error}".split()))
    return ""


def hidden(text: str) -> str:
    """Libraries repeat what they were given."""
    for name, value in os.environ.items():
        if name.endswith(("KEY", "TOKEN", "PASSWORD", "SECRET")) and len(value) > 3:
            text = text.replace(value, f"({name})")
    return CREDENTIALS.sub("", text)


def _end_after(parent: int) -> None:
    """A tracker that hangs must not outlive a killed run for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    time.sleep(LINGERING_SECONDS)
    os._exit(1)
