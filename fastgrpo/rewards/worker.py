"""What runs in the processes that compute rewards: a nursery, started fresh, that forks workers, and the workers' loop.

A worker that is killed is replaced within milliseconds, since the nursery has imported sympy already. Forking it is safe where forking
a trainer is not: it has one thread, neither torch nor CUDA, and computes nothing. The children of a worker die with it: each worker
leads a process group, and that is what gets killed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from multiprocessing.connection import Connection

from fastgrpo.rewards.verify import Verifier, equivalent
from fastgrpo.types import Answer

REQUEST = struct.Struct("!ci")  # FORK with the worker's end of a socket attached, or KILL with the id of a worker
REPLY = struct.Struct("!i")  # to FORK the new worker's id, or a negative errno; to KILL the exit code, negative for a signal
FORK, KILL = b"F", b"K"
READY = 0  # the first reply, once all is imported
PR_SET_PDEATHSIG = 1


def nursery(control: int, prepare: str) -> None:
    """Serves requests on the socket `control` (a file descriptor) until the other end closes, then kills every worker that is left.

    `prepare` names a function, MODULE:NAME, that is called once before the first fork.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, name = prepare.partition(":")
    getattr(importlib.import_module(module), name)()
    workers: set[int] = set()
    with socket.socket(fileno=control) as requests:
        gc.freeze()  # the collector of a worker leaves these objects alone, so their pages stay shared
        _silence()
        requests.sendall(REPLY.pack(READY))
        while request := _receive(requests):
            (kind, pid), channel = request
            if kind == FORK:
                reply = _fork(channel, requests)
                workers |= {reply} if reply > 0 else set()
            else:
                reply = _kill(pid)
                workers.discard(pid)
            requests.sendall(REPLY.pack(reply))
    for pid in workers:
        _kill(pid)


def _receive(requests: socket.socket) -> tuple[tuple[bytes, int], int | None] | None:
    """The next request and the descriptor that came with it; None when the other end has closed."""
    try:
        message, descriptors, _, _ = socket.recv_fds(requests, REQUEST.size, 1)
    except OSError:
        return None
    if len(message) < REQUEST.size:
        return None
    return REQUEST.unpack(message), descriptors[0] if descriptors else None


def _fork(channel: int, requests: socket.socket) -> int:
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or errno.EAGAIN)
    if pid == 0:
        requests.close()
        _work(channel)
    if pid > 0:
        os.setpgid(pid, pid)  # here, so that the group exists before anyone can ask to kill it
    os.close(channel)
    return pid


def _kill(pid: int) -> int:
    """Kills a worker that still runs, and the processes it started. Only here are workers reaped, so no id changes its meaning."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # a worker of an earlier nursery
        return -signal.SIGKILL


def _silence() -> None:
    """What this process and its workers print goes nowhere: a loop that prints must not flood the terminal of a training run."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def _work(channel: int) -> None:
    """Runs (function, arguments) from `channel` and answers (True, result) or (False, what was raised), until the other end closes."""
    try:
        _die_with_the_nursery()
        with Connection(channel) as tasks:
            while True:
                function, arguments = tasks.recv()
                try:
                    answer = (True, function(*arguments))
                except Exception as error:
                    answer = (False, traceback.format_exception_only(error)[-1].strip())
                tasks.send(answer)
    finally:
        os._exit(0)  # no clean-up that belongs to the nursery


def _die_with_the_nursery() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare_fast() -> None:
    """Imports sympy and fills the caches that would otherwise cost the first answer its time."""
    equivalent(r"\frac{x}{\sqrt{3}}", r"\frac{x}{2}", "fast")


def prepare_math_verify() -> None:
    """As `prepare_fast`, with Math-Verify."""
    equivalent(r"\frac{x}{\sqrt{3}}", r"\frac{x}{2}", "math_verify")


def prepare_nothing() -> None:
    """For workers that import what they need themselves."""


def limit(memory_bytes: int, cpu_seconds: int) -> None:
    """Bounds what a hostile answer can take: address space, processor time, new processes and threads.

    Memory beyond the limit raises MemoryError. The limit on processes counts those of the user but binds this process alone, so 0 forbids
    them here and nowhere else; the kernel does not apply it to root.
    """
    import logging
    import warnings

    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (most, most))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def judge(answer: str, gold: Answer, verifier: Verifier, compat: bool = False) -> bool | None:
    """`equivalent`, or None where an answer makes a parser raise: this is what a pool schedules."""
    try:
        return equivalent(answer, gold, verifier, compat)
    except Exception:  # any error of a parser fed with a model's text is a verdict on that text
        return None
