"""What a directory on the command line is: a run in whatever state, an experiment with its runs, or something that has no report.

What would surprise: a run may be going on, or have died at any byte. What cannot be read of it is left out and said, never fatal.
"""

from __future__ import annotations

import fcntl
import json
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastgrpo.errors import InputError, SetupError
from fastgrpo.report.settings import Setting, read_settings

LOG_LINES = 40  # of the first rank's log that a page shows


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its directory tells it. `state` is running, finished, stopped or empty, `said` a sentence on it; `rows` are the lines of
    metrics.jsonl, with None for numbers that are not finite; `notes` say what could not be read."""

    path: Path
    name: str
    state: str
    said: str
    settings: Sequence[Setting]
    rows: Sequence[dict]
    summary: dict
    log: str
    notes: Sequence[str]

    @property
    def steps(self) -> list[dict]:
        """Rows of optimizer steps, of training or pretraining."""
        return [row for row in self.rows if "evaluation" not in row and isinstance(row.get("step"), int)]

    @property
    def evaluations(self) -> list[dict]:
        return [row for row in self.rows if isinstance(row.get("evaluation"), dict) and isinstance(row.get("step"), int)]


def find_runs(given: Sequence[str]) -> list[Path]:
    """The run directories that are meant, each once: an experiment stands for its runs, which may be evaluations and thus none.

    Raises InputError for anything else.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, given):
        try:
            for run in experiment_runs(path) if is_experiment(path) else [require_run(path)]:
                found.setdefault(run.resolve(), run)
        except PermissionError as error:
            raise SetupError(f"{path} cannot be read: {error.strerror}") from error
    return list(found.values())


def require_run(path: Path) -> Path:
    """Raises InputError for what is no run, saying what it is."""
    if not path.exists():
        raise InputError(f"{path}: no such directory; give the run directory of fastgrpo train, such as runs/mine")
    if not path.is_dir():
        raise InputError(f"{path} is a file; give the run directory of fastgrpo train, such as runs/mine")
    if is_run(path):
        return path
    if (path / "protocol.json").is_file():
        raise InputError(
            f"{path} holds an evaluation or analysis, not a run: its numbers are in results.json, each response in *.parquet; "
            "give the run directory of fastgrpo train"
        )
    inside = sorted(child.name for child in path.iterdir() if child.is_dir() and is_run(child))
    if inside:
        shown = ", ".join(inside[:8]) + (f" and {len(inside) - 8} more" if len(inside) > 8 else "")
        raise InputError(f"{path} is no run but holds some: name one or more of {shown}")
    raise InputError(f"{path} is no run: it has neither config.yaml nor metrics.jsonl; give the run directory of fastgrpo train")


def is_run(path: Path) -> bool:
    return (path / "metrics.jsonl").is_file() or ((path / "config.yaml").is_file() and (path / "logs").is_dir())


def is_experiment(path: Path) -> bool:
    """A directory of `fastgrpo experiment`: protocol.json says so from the beginning at toy scale, results.json at the end of both."""
    return any("experiment" in read_json(path / name, []) for name in ("protocol.json", "results.json"))


def experiment_runs(path: Path) -> list[Path]:
    """Its training and pretraining runs. Raises InputError where there are neither runs nor results yet."""
    runs = sorted(child for child in (path / "runs").glob("*") if is_run(child))
    if not runs and not (path / "results.json").is_file():
        raise InputError(f"{path} is an experiment without runs yet: wait, or start it with fastgrpo experiment")
    return runs


def read_run(path: Path) -> RunRecord:
    """Everything small of a run; its rollouts are read apart."""
    notes: list[str] = []
    rows = read_rows(path / "metrics.jsonl", notes)
    summary = read_json(path / "summary.json", notes)
    log = tail(path / "logs" / "rank_0.log")
    settings = read_settings(path / "config.yaml")
    if not settings:
        notes.append("config.yaml is missing or empty: the run stopped before it was written")
    state, said = judge(path, rows, summary, log, settings)
    return RunRecord(path, path.resolve().name, state, said, settings, rows, summary, log, tuple(notes))


def read_rows(path: Path, notes: list[str]) -> list[dict]:
    """The rows of a file of JSON lines that may still grow: an unfinished last line is none yet, a broken one is left out and noted."""
    try:
        data = path.read_bytes()
    except OSError as error:
        notes.append(f"{path.name} cannot be read ({error.strerror})")
        return []
    rows, broken = [], []
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            row = finite(json.loads(line))
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            broken.append(number)
    if broken:
        notes.append(f"{path.name}: {len(broken)} lines are no JSON object and left out, the first is line {broken[0]}")
    return rows


def read_json(path: Path, notes: list[str]) -> dict:
    """{} where there is no such file, or none that can be read."""
    if not path.exists():
        return {}
    try:
        found = finite(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({error})")
        return {}
    return found if isinstance(found, dict) else {}


def finite(value):
    """The same with None for NaN and infinities, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list) else value


def tail(path: Path) -> str:
    try:
        return "\n".join(path.read_bytes()[-100_000:].decode(errors="replace").splitlines()[-LOG_LINES:])
    except OSError:
        return ""


def judge(path: Path, rows: Sequence[dict], summary: dict, log: str, settings: Sequence[Setting]) -> tuple[str, str]:
    """The state of a run, and a sentence on it."""
    done = max((row["step"] for row in rows if isinstance(row.get("step"), int) and "evaluation" not in row), default=0)
    wanted = summary.get("steps") or next((setting.text for setting in settings if setting.key == "steps"), "")
    steps = f"{done} of {wanted} steps" if wanted else f"{done} steps"
    if is_held(path / "lock"):
        return "running", f"running: {steps} are done"
    if summary:
        return "finished", f"finished: {steps}"
    reason = next((line.split("stopped: ", 1)[1] for line in reversed(log.splitlines()) if "stopped: " in line), "it left no reason")
    host = owner(path / "lock")
    if reason == "it left no reason" and host not in ("", socket.gethostname()):
        reason += f", or still runs on {host}, which cannot be seen from here"
    return ("stopped" if done else "empty"), f"stopped after {steps}: {reason}"


def owner(lock: Path) -> str:
    """The machine of the process that last held the run; "" where that is unknown."""
    try:
        return json.loads(lock.read_text()).get("host", "")
    except (OSError, ValueError, AttributeError):
        return ""


def is_held(lock: Path) -> bool:
    """Whether a living process of this machine holds the run."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
