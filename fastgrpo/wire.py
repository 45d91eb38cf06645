"""What the launchers of several machines say to each other: lines of JSON over TCP, `{}` as a sign of life. And who reaches whom how."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

SEND = 5.0  # seconds for a message to leave this machine, or to be fetched before the connection is closed
SIOCGIFADDR = 0x8915


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run ended, in words, and its exit code."""

    code: int
    text: str


@dataclass(slots=True)
class Peer:
    """The launcher of another node, and the ranks that it started."""

    socket: socket.socket
    node: int
    address: str
    ranks: Sequence[int] = (0,)
    heard: float = field(default_factory=time.monotonic)
    buffer: bytes = b""
    done: bool = False

    def __str__(self) -> str:
        return f"node {self.node} (from rank {self.ranks[0]}) at {self.address}"

    def say(self, **message: object) -> None:
        with contextlib.suppress(OSError):  # who is gone is noticed by what they do not say
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict]:
        """The messages that have come, once there is something to read. Raises OSError where the connection ended."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("it ended without a word")
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        self.heard = time.monotonic()
        return [json.loads(line) for line in lines]

    def first_message(self, deadline: float) -> dict:
        """Raises OSError or ValueError where none comes by then."""
        messages: list[dict] = []
        while not messages:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            messages = self.read()
        self.socket.settimeout(SEND)
        return messages[0]

    def close(self) -> None:
        """Once the other has read all and closed too: to close over something unread takes back what was said last."""
        deadline = time.monotonic() + SEND
        with contextlib.suppress(OSError), self.socket:
            self.socket.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline and self.socket.recv(65536):
                pass


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def interface(address: str) -> str | None:
    """The name of the network interface with this IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
