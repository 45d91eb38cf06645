"""Commands without a process of their own, which would load torch again each time."""

from dataclasses import dataclass

from typer.testing import CliRunner

from fastgrpo.cli import make_app
from fastgrpo.errors import FastgrpoError


@dataclass(frozen=True)
class Finished:
    """Named as subprocess does; `stderr` ends with the message of an expected failure."""

    returncode: int
    stdout: str
    stderr: str


def in_process(*arguments: str, typed: str | None = None) -> Finished:
    """`fastgrpo ARGUMENTS` with `typed` coming through a pipe."""
    done = CliRunner().invoke(make_app(), [str(argument) for argument in arguments], input=typed)
    if isinstance(done.exception, FastgrpoError):
        lines = "".join(f"fastgrpo: {line}\n" for line in str(done.exception).splitlines())
        return Finished(done.exception.exit_code, done.stdout, done.stderr + lines)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Finished(done.exit_code, done.stdout, done.stderr)
