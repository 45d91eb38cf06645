"""The launchers of several machines meet or say why not, pass on what failed, and notice who is gone; who is only slow is not."""

import contextlib
import socket
import threading
import time

import pytest

from fastgrpo.errors import FastgrpoError, InputError, SetupError
from fastgrpo.nodes import Nodes
from fastgrpo.wire import Failure, free_port


def meet(*nodes, ranks=1, arguments=(), late=()):
    """Lets these nodes meet at the same time; their results or errors. `arguments` and seconds `late` are by node."""
    results = {}

    def run(node):
        time.sleep(dict(late).get(node.node, 0))
        try:
            results[node] = node.meet(ranks + node.node, dict(arguments).get(node.node, ["train"]))
        except FastgrpoError as error:
            results[node] = error
            node.close()

    threads = [threading.Thread(target=run, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[node] for node in nodes]


def three(patience=20.0):
    address = f"127.0.0.1:{free_port()}"
    return [Nodes(3, node, address, patience) for node in (2, 0, 1)]


@contextlib.contextmanager
def met(patience=20.0):
    """Nodes 0, 1 and 2 after they have met; from then on they have this patience."""
    nodes = three()
    assert all(isinstance(result, tuple) for result in meet(*nodes))
    for node in nodes:
        node.patience = patience
    try:
        yield sorted(nodes, key=lambda node: node.node)
    finally:
        closing = [threading.Thread(target=node.close) for node in nodes]
        [thread.start() for thread in closing], [thread.join() for thread in closing]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((2, 2, "a:1"), "--node, from 0 to 1"),
        ((2, None, "a:1"), "--node not given"),
        ((2, 0, None), "--meet not given"),
        ((2, 0, "a"), "--meet is 'a': give HOST:PORT"),
        ((2, 0, "a:x"), "--meet is 'a:x': give HOST:PORT"),
        ((1, 1, None), "give --nodes"),
        ((1, None, "a:1"), "give --nodes"),
    ],
)
def test_wrong_combinations_are_named(given, words):
    with pytest.raises(InputError, match=words):
        Nodes(*given)


def test_nodes_of_different_sizes_share_out_the_ranks_in_their_order():
    nodes = three()
    found = {node.node: result for node, result in zip(nodes, meet(*nodes), strict=True)}
    assert [found[node][0] for node in range(3)] == [0, 1, 3]  # node k brings k + 1 ranks
    assert {tuple(sorted(shared.items())) for _, shared in found.values()} == {tuple(sorted(found[0][1].items()))}
    assert found[0][1]["WORLD_SIZE"] == "6" and found[0][1]["GLOO_SOCKET_IFNAME"] == "lo"


def test_other_settings_or_a_number_twice_end_the_meeting_on_all_nodes():
    assert all("node 1 was given other settings" in str(error) for error in meet(*three()[1:], arguments={1: ["train", "lr=1"]})[:1])
    address = f"127.0.0.1:{free_port()}"
    for error in meet(Nodes(3, 0, address), Nodes(3, 1, address), Nodes(3, 1, address)):
        assert isinstance(error, InputError) and "there came --node 1 of --nodes 3" in str(error)


def test_who_does_not_come_is_named_when_patience_ends():
    started = time.monotonic()
    zero, one = meet(*three(patience=1.5)[1:])
    assert isinstance(zero, SetupError) and "did not come: node 2" in str(zero) and "did not come: node 2" in str(one)
    (alone,) = meet(Nodes(2, 1, f"127.0.0.1:{free_port()}", 1.5))
    assert isinstance(alone, SetupError) and "node 0 does not answer at 127.0.0.1" in str(alone)
    assert time.monotonic() - started < 10


def test_a_port_in_use_and_a_host_without_an_address_are_named():
    with socket.create_server(("", 0)) as taken:
        (error,) = meet(Nodes(2, 0, f"127.0.0.1:{taken.getsockname()[1]}"))
        assert isinstance(error, SetupError) and "cannot listen on this port: Address already in use" in str(error)
    (error,) = meet(Nodes(2, 1, "no-such-host.invalid:1", 1))
    assert isinstance(error, SetupError) and "no-such-host.invalid:1" in str(error)


def test_a_stranger_at_the_door_does_not_disturb():
    two, zero, one = three()
    found = []
    waiting = threading.Thread(target=lambda: found.extend(meet(zero)))
    waiting.start()
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n"):
        stranger = None
        while stranger is None:  # node 0 goes on listening until the others come, which is after this
            with contextlib.suppress(ConnectionRefusedError):
                stranger = socket.create_connection(("127.0.0.1", zero.port))
        with stranger:
            stranger.sendall(words)
    found += meet(one, two)
    waiting.join()
    assert len(found) == 3 and all(isinstance(result, tuple) for result in found)


def test_a_failure_reaches_every_node_and_overtakes_who_only_lost_the_others():
    with met() as (zero, one, two):
        two.tell(Failure(4, "what happened"))
        lost = Failure(1, "rank 0 lost touch with the other ranks: one of them ended, or the network did")
        heard = zero.cause(lost, 5)
        assert heard == Failure(4, "what happened")
        zero.tell(heard)
        assert one.cause(lost, 5) == heard


def test_a_long_last_word_arrives_although_its_node_closes_over_something_unread():
    with met() as (zero, one, two):
        two.peers[0].socket.close()
        one.peers[0].say()
        last = Failure(1, "x" * 2_000_000)
        closing = threading.Thread(target=lambda: (zero.tell(last), zero.close()))
        closing.start()
        time.sleep(0.3)
        while (found := one.failure()) is None:
            time.sleep(0.01)
        one.close()
        closing.join()
        assert found == last


def test_a_silent_node_and_one_that_ends_are_lost_and_a_finished_one_is_not():
    with met(patience=0.5) as (zero, one, two):
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert (zero.failure(), one.failure(), two.failure()) == (None,) * 3
            time.sleep(0.05)
        while (found := zero.failure()) is None:  # node 1 says nothing any more
            assert two.failure() is None
        assert "lost touch with node 1 (from rank 1) at 127.0.0.1: no sign of life for" in found.text
    with met() as (zero, one, two):
        assert not one.finished() and not zero.finished()
        two.peers[0].socket.shutdown(socket.SHUT_RDWR)
        while (found := zero.failure()) is None:
            time.sleep(0.05)
        assert "lost touch with node 2 (from rank 3) at 127.0.0.1: it ended without a word" in found.text
    with met() as nodes:
        until = time.monotonic() + 5
        while sum(node.finished() for node in nodes) < 3:
            assert [node.failure() for node in nodes] == [None] * 3 and time.monotonic() < until


def test_who_had_to_wait_for_the_last_to_come_is_not_lost():
    nodes = sorted(three(patience=3), key=lambda node: node.node)
    assert all(isinstance(result, tuple) for result in meet(*nodes, late={2: 2}))
    time.sleep(1.5)
    assert [node.failure() for node in nodes] == [None] * 3
    for node in reversed(nodes):
        node.peers[0].socket.close()
