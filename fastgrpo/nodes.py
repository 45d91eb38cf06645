"""Several machines as one run: their launchers meet, pass on the first failure, and notice when a machine or the network is gone.

The launchers talk, not the ranks: they only wait, so one that falls silent is lost, however busy its ranks are. Node 0 is the hub.
Nothing is encrypted or authenticated: meet on a network of your own.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Sequence

from fastgrpo.errors import InputError, SetupError
from fastgrpo.ranks import LOST
from fastgrpo.wire import SEND, Failure, Peer, free_port, interface

BEAT = 1.0  # seconds between signs of life, or less: a quarter of the patience


class Nodes:
    """This machine, `node` of `count`, and its connections. `patience` is in seconds: for the others to come, and for a sign of life.

    One node alone meets nobody. Raises InputError where the numbers or the address do not fit together.
    """

    def __init__(self, count: int = 1, node: int | None = None, meet: str | None = None, patience: float = 120.0):
        if count == 1 and (node or meet):
            raise InputError("--node and --meet are for several machines: give --nodes, how many there are")
        if count > 1 and (node is None or meet is None or not 0 <= node < count):
            given = f"--node {'not given' if node is None else node}, --meet {meet or 'not given'}"
            raise InputError(f"--nodes {count} needs --node, from 0 to {count - 1}, and --meet HOST:PORT, an address of node 0: {given}")
        self.host, _, port = (meet or "127.0.0.1:0").rpartition(":")
        if not self.host or not port.isdecimal() or int(port) > 65535:
            raise InputError(f"--meet is {meet!r}: give HOST:PORT, such as 10.0.0.1:29400")
        self.count, self.node, self.port, self.patience = count, node or 0, int(port), patience
        self.peers: list[Peer] = []
        self.said = 0.0

    def meet(self, ranks: int, arguments: Sequence[str]) -> tuple[int, dict[str, str]]:
        """Waits for all nodes; gives this one's first rank, and the environment that all its ranks share.

        Raises SetupError where they do not meet within the patience, InputError where their commands do not fit together.
        """
        if self.count == 1:
            first, size, port = 0, ranks, free_port()
        elif self.node == 0:
            first, size, port = 0, *self._welcome(ranks, arguments)
        else:
            first, size, port = self._join(ranks, arguments)
        for peer in self.peers:
            peer.heard = time.monotonic()  # from here on: the first to come had to wait for the last in silence
        shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": self.host, "MASTER_PORT": str(port)}
        device = interface(self.peers[0].socket.getsockname()[0]) if self.peers else None
        if device and "GLOO_SOCKET_IFNAME" not in os.environ:  # gloo would take what the host's name means: often the machine itself
            shared["GLOO_SOCKET_IFNAME"] = device
        return first, shared

    def failure(self) -> Failure | None:
        """Gives a sign of life where one is due; what has gone wrong on another node, or with it."""
        now = time.monotonic()
        if now - self.said > min(BEAT, self.patience / 4):
            self._say()
            self.said = now
        talking = [peer for peer in self.peers if not peer.done]
        for peer in [peer for peer in talking if select.select([peer.socket], [], [], 0)[0]]:
            try:
                for message in peer.read():
                    peer.done = peer.done or "done" in message
                    if "failed" in message:
                        return Failure(message["code"], message["failed"])
            except OSError as error:
                return Failure(1, f"fastgrpo: lost touch with {peer}: {error}")
        for peer in talking:
            silent = time.monotonic() - peer.heard
            if silent > self.patience:
                return Failure(1, f"fastgrpo: lost touch with {peer}: no sign of life for {silent:.0f} s (--patience)")
        return None

    def finished(self) -> bool:
        """Says that this node is done, once all whom it speaks for are; True when every node is."""
        if self.node == 0 and not all(peer.done for peer in self.peers):
            return False
        self._say(done=True)
        return all(peer.done for peer in self.peers)

    def cause(self, own: Failure, seconds: float) -> Failure:
        """What another node says within `seconds`, where this one's ranks only lost the others; else its own failure."""
        deadline = time.monotonic() + seconds
        while self.peers and LOST in own.text and time.monotonic() < deadline:
            found = self.failure()
            if found is not None:
                return found
            time.sleep(0.1)
        return own

    def tell(self, failure: Failure) -> None:
        self._say(code=failure.code, failed=failure.text)

    def close(self) -> None:
        for peer in self.peers:
            peer.close()

    def _say(self, **message: object) -> None:
        for peer in self.peers:
            peer.say(**message)

    def _welcome(self, ranks: int, arguments: Sequence[str]) -> tuple[int, int]:
        """Node 0: hears what each other node brings, and tells it where its ranks begin, how many there are and the ranks' port."""
        deadline, brought = time.monotonic() + self.patience, {0: ranks}
        try:
            server = socket.create_server(("", self.port))
        except OSError as error:
            raise SetupError(
                f"--meet {self.host}:{self.port}: node 0 cannot listen on this port: {error.strerror}; choose another"
            ) from error
        with server:
            while len(self.peers) < self.count - 1:
                try:
                    server.settimeout(max(0.01, deadline - time.monotonic()))
                    connection, (address, *_) = server.accept()
                    peer = Peer(connection, 0, address)
                    hello = peer.first_message(min(deadline, time.monotonic() + SEND))
                    peer.node, brought[hello["node"]] = hello["node"], hello["ranks"]
                except TimeoutError:
                    if time.monotonic() > deadline:
                        absent = ", ".join(str(node) for node in range(self.count) if node not in brought)
                        raise self._refusal(SetupError, f"within {self.patience:g} s (--patience) did not come: node {absent}") from None
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # a stranger, who is not one of ours
                else:
                    self.peers.append(peer)
                    self._require_fitting(hello, arguments)
        first, size, port = ranks, sum(brought.values()), free_port()
        for peer in sorted(self.peers, key=lambda peer: peer.node):
            peer.ranks = range(first, first + brought[peer.node])
            peer.say(first=first, size=size, port=port)
            first += brought[peer.node]
        return size, port

    def _require_fitting(self, hello: dict, arguments: Sequence[str]) -> None:
        node = hello["node"]
        if not 0 < node < self.count or hello["count"] != self.count or [peer.node for peer in self.peers].count(node) > 1:
            taken = sorted({0} | {peer.node for peer in self.peers[:-1]})
            wrong = f"there came --node {node} of --nodes {hello['count']}; expected are {self.count}, of which {taken} are here"
            raise self._refusal(InputError, wrong)
        if hello["arguments"] != list(arguments):
            raise self._refusal(InputError, f"node {node} was given other settings: {hello['arguments']}, and node 0 {list(arguments)}")

    def _refusal(self, kind: type[InputError | SetupError], reason: str) -> InputError | SetupError:
        """The error that ends the meeting, told to all who have come."""
        error = kind(f"the nodes did not meet at {self.host}:{self.port}: {reason}")
        self.tell(Failure(kind.exit_code, str(error)))
        return error

    def _join(self, ranks: int, arguments: Sequence[str]) -> tuple[int, int, int]:
        """Another node: keeps calling until node 0 answers, says what it brings, and waits until all have come."""
        deadline = time.monotonic() + self.patience
        while not self.peers:
            try:
                connection = socket.create_connection((self.host, self.port), timeout=max(0.01, deadline - time.monotonic()))
                self.peers = [Peer(connection, 0, f"{self.host}:{self.port}")]
            except OSError as error:
                if time.monotonic() > deadline - 0.5:
                    where = f"node 0 does not answer at {self.host}:{self.port} (--meet) within {self.patience:g} s (--patience)"
                    raise SetupError(f"{where}: {error}") from error
                time.sleep(0.5)
        self.peers[0].say(node=self.node, count=self.count, ranks=ranks, arguments=list(arguments))
        try:
            answer = self.peers[0].first_message(deadline + SEND)  # node 0 may know better why not
        except (OSError, ValueError) as error:
            raise SetupError(f"node 0 at {self.host}:{self.port} (--meet) answered, but the nodes did not meet: {error}") from error
        if "failed" in answer:
            raise (InputError if answer["code"] == InputError.exit_code else SetupError)(answer["failed"])
        print(f"fastgrpo: node {self.node}, from rank {answer['first']} of {answer['size']}; node 0 shows the run", file=sys.stderr)
        return answer["first"], answer["size"], answer["port"]
