"""The errors a user can meet, each with the exit code that `fastgrpo` ends with (0 ok, 1 a crash of ours, 75 preempted)."""


class FastgrpoError(Exception):
    """Base of all expected failures: the message alone is shown, without a traceback."""

    exit_code = 1


class InputError(FastgrpoError):
    """Bad configuration or data: what was given, what is allowed, what to do."""

    exit_code = 2


class SetupError(FastgrpoError):
    """The environment lacks something: a package, a readable directory, disk space."""

    exit_code = 3


class HealthError(FastgrpoError):
    """The run cannot learn any more: a non-finite loss, or rewards that never differ."""

    exit_code = 4


class Preempted(FastgrpoError):
    """The run was told to stop, and has been saved: the same command with `--resume auto` goes on."""

    exit_code = 75


class NotFinite(HealthError):
    """A gradient is not finite: no weight was changed, on any rank."""
