"""Real runs of two nodes: on this machine, and as two hosts, network namespaces, with a cable between them that can be cut."""

import os
import shutil
import subprocess
import time

import pytest
import torch
from test_ranks import command, problems, weights

from fastgrpo.wire import free_port

__all__ = ["command", "problems"]


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


@pytest.mark.long  # 20 s
def test_two_nodes_train_and_a_slow_rank_is_not_a_lost_one(start, tmp_path):
    codes, said = ended(start(f"127.0.0.1:{free_port()}", "steps=2", "--patience", "5", faults="sample@2:1:slow"), 100)
    assert codes == [0, 0], said
    assert "node 1, from rank 1 of 2" in said[1]
    assert (tmp_path / "node1" / "run" / "logs" / "rank_1.log").exists() and (tmp_path / "node0" / "run" / "summary.json").exists()


@pytest.mark.long  # 15 s
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


@pytest.mark.long  # 45 s
def test_two_hosts_train_over_their_network_as_one_process_would(start, hosts, command, tmp_path):
    codes, said = ended(start("10.77.0.1:29400", before=lambda node: ("ip", "netns", "exec", hosts[node])), 100)
    assert codes == [0, 0], said
    given, environment, alone = command("alone")
    subprocess.run(given, env=environment, capture_output=True, timeout=60, check=True)
    one, other = weights(alone), weights(tmp_path / "node0" / "run")
    assert all(torch.allclose(one[key], other[key], rtol=1e-4, atol=1e-6) for key in one)


@pytest.mark.long  # 40 s
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
