"""The trainer's side of worker.py: a handle of the nursery process, and one of each worker that it forked."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from fastgrpo.errors import SetupError
from fastgrpo.rewards.worker import FORK, KILL, REPLY, REQUEST

START_SECONDS = 60.0  # for a nursery to import sympy, or a worker a user's module, on a busy machine; never counts against a deadline

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from fastgrpo.rewards.worker import nursery; "
_BOOT += "nursery(int(sys.argv[2]), sys.argv[3])"


class WorkerDied(Exception):
    """The process ended, or was ended by the system, while it worked on a task."""


class TaskFailed(Exception):
    """The task raised; the message is the exception's own, with its type."""


class TaskTimeout(Exception):
    """The task did not end within its deadline, and its worker was killed."""


class Nursery:
    """A handle of one nursery process; methods may be called from any thread. Raises SetupError where it cannot start or fork."""

    def __init__(self, prepare: str):
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(theirs.fileno()), prepare]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # a worker has no business on the trainer's GPUs
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is the trainer's to handle
            )
        try:
            self._reply(START_SECONDS)
        except OSError as error:
            self._process.kill()
            self.close()
            said = self._errors().strip().splitlines() or [str(error)]
            raise SetupError(f"reward processes cannot start: {said[-1]}") from None
        self._process.stderr.close()

    def fork(self) -> tuple[int, Connection]:
        """A new worker's process id and the connection to it. Raises OSError when the nursery has died."""
        ours, theirs = socket.socketpair()
        for way in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # for a worker that stops in the middle of a message
            ours.setsockopt(socket.SOL_SOCKET, way, struct.pack("ll", int(START_SECONDS), 0))
        with ours, theirs, self._lock:
            socket.send_fds(self._control, [REQUEST.pack(FORK, 0)], [theirs.fileno()])
            pid = self._reply(START_SECONDS)
            if pid < 0:
                raise SetupError(f"no process for a reward worker: {os.strerror(-pid)}; close other programs, or lower reward.workers")
            return pid, Connection(ours.detach())

    def kill(self, pid: int) -> int:
        """Kills a worker with all its children, and waits until it is gone. Returns its exit code, negative for a signal.

        Raises OSError when the nursery, and so the worker, has died.
        """
        with self._lock:
            self._control.sendall(REQUEST.pack(KILL, pid))
            return self._reply(START_SECONDS)

    def close(self) -> None:
        """Ends the nursery, which kills all workers that are left."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _reply(self, seconds: float) -> int:
        self._control.settimeout(seconds)
        try:
            reply = self._control.recv(REPLY.size)
        except TimeoutError:
            self._control.shutdown(socket.SHUT_RDWR)  # or a late reply would be taken for the next one
            raise
        if len(reply) < REPLY.size:
            raise ConnectionError("the process that starts reward workers has ended")
        return REPLY.unpack(reply)[0]

    def _errors(self) -> str:
        with self._process.stderr as errors:
            return errors.read().decode(errors="replace")


class Worker:
    """One worker process, used by one thread; `tasks` is how many it was given. Making one raises what `Nursery.fork` raises."""

    def __init__(self, nursery: Nursery):
        self._nursery = nursery
        self._pid, self._connection = nursery.fork()
        self.tasks = 0

    def alive(self) -> bool:
        """Nothing can be read from an idle worker but the end of its life."""
        return not self._connection.poll(0)

    def call(self, function: Callable, arguments: tuple, deadline: float) -> object:
        """The function's result. Raises TaskFailed, TaskTimeout, WorkerDied."""
        try:
            message = pickle.dumps((function, arguments))
        except Exception as error:  # whatever an object's own pickling raises
            raise TaskFailed(f"cannot be sent to a worker process: {error}") from None
        self.tasks += 1
        try:
            self._connection.send_bytes(message)
            if not self._connection.poll(deadline):
                raise TaskTimeout(f"no result within {deadline:g} s")
            succeeded, result = self._connection.recv()
        except (OSError, EOFError):
            raise WorkerDied("its process died") from None
        if not succeeded:
            raise TaskFailed(result)
        return result

    def discard(self) -> str:
        """Kills it and says how it ended."""
        self._connection.close()
        try:
            code = self._nursery.kill(self._pid)
        except OSError:
            return "its process was killed"
        return f"its process died of {signal.Signals(-code).name}" if code < 0 else f"its process ended with exit code {code}"
