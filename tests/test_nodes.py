"""Several machines: launchers that meet or say why not; real runs of two, on this machine and over a link that can be cut."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest
import torch
from test_ranks import command, letter_problems, weights

from fastgrpo.errors import FastgrpoError, InputError, SetupError
from fastgrpo.nodes import Nodes
from fastgrpo.wire import Failure, free_port

__all__ = ["command", "letter_problems"]


def meet(*nodes, ranks=1, arguments=(), late=()):
    """Lets these nodes meet at the same time; each one's result, or the error that it ended with. `arguments`, and how `late` it comes, are by node."""
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
    nodes = three()
    address = ("127.0.0.1", nodes[0].port)

    def knock():
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n"):
            while True:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address) as stranger:
                    stranger.sendall(words)
                    break

    stranger = threading.Thread(target=knock)
    stranger.start()
    assert all(isinstance(result, tuple) for result in meet(*nodes))
    stranger.join()


def test_a_failure_reaches_every_node_and_overtakes_who_only_lost_the_others():
    with met() as (zero, one, two):
        two.tell(Failure(4, "what happened"))
        lost = Failure(1, "rank 0 lost touch with the other ranks: one of them ended, or the network did")
        heard = zero.cause(lost, 5)
        assert heard == Failure(4, "what happened")
        zero.tell(heard)
        assert one.cause(lost, 5) == heard


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


@pytest.fixture
def start(command, tmp_path):
    """Starts both nodes of a run with one rank each, in directories that they do not share; `before(node)` goes before the command."""
    started = []

    def nodes(address, *arguments, before=lambda node: (), faults=""):
        given, environment, _ = command("unused", *arguments, "run_dir=run", "reward.workers=1", faults=faults)
        for node in (0, 1):
            (tmp_path / f"node{node}").mkdir()
            own = [*before(node), *given, "--nodes", "2", "--node", str(node), "--meet", address]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(own, env=environment, cwd=tmp_path / f"node{node}", **pipes))
        return started

    yield nodes
    for process in started:
        process.terminate()


def ended(processes, seconds):
    """Exit codes and what was said on stderr, of processes that end within so many seconds."""
    said = [process.communicate(timeout=seconds)[1] for process in processes]
    return [process.returncode for process in processes], said


@pytest.mark.slow  # 20 s
def test_two_nodes_train_and_a_slow_rank_is_not_a_lost_one(start, tmp_path):
    codes, said = ended(start(f"127.0.0.1:{free_port()}", "steps=2", "--patience", "5", faults="sample@2:1:slow"), 100)
    assert codes == [0, 0], said
    assert "node 1, from rank 1 of 2" in said[1]
    assert (tmp_path / "node1" / "run" / "logs" / "rank_1.log").exists() and (tmp_path / "node0" / "run" / "summary.json").exists()


@pytest.mark.slow  # 15 s
def test_a_crash_ends_a_rank_of_another_node_that_could_not_have_noticed(start):
    processes = start(f"127.0.0.1:{free_port()}", faults="sample@2:0:hang,sample@2:1:raise")
    codes, said = ended(processes, 60)
    assert codes == [1, 1]
    for text in said:
        assert "InjectedFault: sample@2:1:raise" in text and "rank 1 ended with exit code 1; the others were stopped" in text
    assert "stopped here: rank 0 in the phase 'sample'" in said[0]


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them, 10.77.0.1 and 10.77.0.2: their names."""
    names = [f"fastgrpo{os.getpid()}-{node}" for node in (0, 1)]
    if shutil.which("ip") is None or any(ip("netns", "add", name).returncode for name in names):
        pytest.skip("network namespaces need root and the command `ip`")
    try:
        made = ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        assert made.returncode == 0, made.stderr
        for node, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.77.0.{node + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.slow  # 20 s
def test_two_hosts_train_over_their_network_as_one_process_would(start, hosts, command, tmp_path):
    codes, said = ended(start("10.77.0.1:29400", before=lambda node: ("ip", "netns", "exec", hosts[node])), 100)
    assert codes == [0, 0], said
    given, environment, alone = command("alone")
    subprocess.run(given, env=environment, capture_output=True, timeout=60, check=True)
    one, other = weights(alone), weights(tmp_path / "node0" / "run")
    assert all(torch.allclose(one[key], other[key], rtol=1e-4, atol=1e-6) for key in one)


@pytest.mark.slow  # 25 s
def test_a_cut_cable_ends_both_hosts_and_is_named(start, hosts, tmp_path):
    processes = start("10.77.0.1:29400", "steps=100000", "--patience", "4", before=lambda node: ("ip", "netns", "exec", hosts[node]))
    rows, until = tmp_path / "node0" / "run" / "metrics.jsonl", time.monotonic() + 60
    while not (rows.exists() and len(rows.read_text().splitlines()) > 2):
        assert time.monotonic() < until and [process.poll() for process in processes] == [None, None]
        time.sleep(0.2)
    assert ip("-n", hosts[0], "link", "set", "eth0", "down").returncode == 0
    codes, said = ended(processes, 25)
    assert codes == [1, 1]
    assert (
        "lost touch with node 1 (from rank 1) at 10.77.0.2: no sign of life for 4 s" in said[0] and "stopped here: rank 0 in the" in said[0]
    )
    assert "lost touch with node 0 (from rank 0) at 10.77.0.1:29400: no sign of life for 4 s" in said[1]
