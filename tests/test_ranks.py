"""`fastgrpo train` on several ranks: the same run as on one, and an end with one clear cause when a rank fails, hangs or is slow."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from optional import requires
from rollout.colocation import requires_vllm
from safetensors.torch import load_file
from test_trainer import write_letter_problems

from fastgrpo.ranks import Ranks
from fastgrpo.wire import free_port

ROOT = Path(__file__).parents[1]
SETTINGS = [
    *("dtype=float32", "steps=3", "prompts_per_step=6", "samples_per_prompt=4", "updates_per_rollout=3", "max_new_tokens=12"),
    *(
        "lr=1e-4",
        "loss.truncation=keep",
        "template=no",
        "tokens_per_pack=200",
        "loss.type=dr_grpo",
        "eval.verifier=fast",
        "temperature=0.7",
    ),
]


def command_in(folder, model, problems):
    """Gives the command of a run of a few steps in this folder, its environment and its directory."""

    rewards = folder / "rewards.py"
    rewards.write_text("import zlib\ndef even(completions):\n    return [zlib.crc32(text.encode()) % 2 for text in completions]\n")

    def of(name, *arguments, launcher=("-m", "fastgrpo"), faults=""):
        directory = folder / name
        given = [f"model={model}", f"data.train={problems}", f"data.eval=[{problems}]", f"run_dir={directory}"]
        given.append(f"reward.function={rewards}:even")
        command = [sys.executable, *launcher, "train", "tiny", *SETTINGS, *given, *arguments]
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}", "FASTGRPO_FAULTS": faults}
        return command, environment, directory

    return of


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return write_letter_problems(tmp_path_factory.mktemp("problems"))


@pytest.fixture
def command(tmp_path, tiny_model_dir, problems):
    return command_in(tmp_path, tiny_model_dir, problems)


def run_of(command):
    """Runs it; gives back the finished process and the run's directory."""

    def start(*arguments, **named):
        given, environment, directory = command(*arguments, **named)
        return subprocess.run(given, env=environment, capture_output=True, text=True, timeout=120), directory

    return start


@pytest.fixture
def train(command):
    return run_of(command)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_model_dir, problems):
    """The directory of the run by one process that others are compared with."""
    done, directory = run_of(command_in(tmp_path_factory.mktemp("one_process"), tiny_model_dir, problems))("alone")
    assert done.returncode == 0, done.stderr
    return directory


def rollouts(directory):
    paths = sorted((directory / "rollouts").iterdir())
    rows = [row for path in paths for row in pyarrow.parquet.read_table(path).to_pylist()]
    return [(row["step"], row["prompt_id"], row["sample"], row["token_ids"], row["reward"], row["advantage"]) for row in rows]


def metrics(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def without_layout(update):
    """An update's report, without how its packs lay on the ranks."""
    return {name: value for name, value in update.items() if name not in ("fill", "imbalance", "packs", "empty_packs")}


def weights(directory):
    return load_file(directory / "checkpoints" / "latest" / "model.safetensors")


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4", "-m", "fastgrpo")


@pytest.mark.slow  # 60 s on two busy cores
@pytest.mark.parametrize("counts", [(2, 4), pytest.param((3, 4), marks=pytest.mark.long)], ids=str)
def test_any_number_of_ranks_is_the_same_run(train, alone, counts):
    for count in counts:
        done, directory = train(str(count), launcher=TORCHRUN) if count == 4 else train(str(count), "--gpus", str(count))
        assert done.returncode == 0, done.stderr
        assert rollouts(directory) == rollouts(alone)
        for mine, theirs in zip(metrics(alone), metrics(directory), strict=True):
            assert theirs["step"] == mine["step"] and theirs.get("evaluation") == mine.get("evaluation")
            for one, other in zip(mine.get("updates", []), theirs.get("updates", []), strict=True):
                assert without_layout(other) == pytest.approx(without_layout(one), rel=1e-4, abs=1e-6)
                assert other["packs"] <= one["packs"]
        one, other = weights(alone), weights(directory)
        assert all(torch.allclose(one[key], other[key], rtol=1e-4, atol=1e-6) for key in one)
        assert not all(torch.equal(one[key], other[key]) for key in one)  # sums in another order: several ranks did compute them
    assert sorted(path.name for path in (directory / "logs").iterdir()) == [f"rank_{rank}.log" for rank in range(4)]


@requires_vllm
@pytest.mark.long  # 50 s: each rank builds an engine
def test_ranks_with_an_engine_each_draw_what_one_process_draws(train, alone):
    done, directory = train("two", "--gpus", "2", "rollout.engine=vllm", "rollout.cache_gib=0.05")
    assert done.returncode == 0, done.stderr
    assert rollouts(directory) == rollouts(alone)
    assert all(row["parity"]["largest"] < 2e-3 for row in metrics(directory) if "updates" in row)


requires_deepspeed = requires("deepspeed")


@requires_deepspeed
@pytest.mark.long  # 35 s each on two busy cores
@pytest.mark.parametrize("zero", [1, 3])
def test_deepspeed_draws_and_learns_what_one_process_does(train, alone, zero):
    done, directory = train("spread", "--gpus", "2", "learner.engine=deepspeed", f"learner.zero={zero}")
    assert done.returncode == 0, done.stderr
    assert rollouts(directory) == rollouts(alone)
    one, other = weights(alone), weights(directory)
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[key], other[key], rtol=1e-3, atol=1e-5) for key in one)


@requires_deepspeed
@pytest.mark.long  # 30 s
def test_the_launcher_of_deepspeed_starts_ranks_from_a_hostfile(train, tmp_path):
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    where = ("--no_ssh", "--node_rank=0", "--master_addr=127.0.0.1", f"--master_port={free_port()}")
    runner = ("-m", "deepspeed.launcher.runner", f"--hostfile={tmp_path / 'hosts'}", *where, "--module", "fastgrpo")
    done, directory = train("run", "steps=1", launcher=runner)
    assert done.returncode == 0, done.stderr
    assert "--local_rank=1" in done.stdout + done.stderr
    assert {path.name for path in (directory / "logs").iterdir()} == {"rank_0.log", "rank_1.log"}


@requires_deepspeed
@requires_vllm
@pytest.mark.long  # 40 s: each rank of both runs builds an engine
def test_deepspeed_and_vllm_together_draw_what_one_process_draws(train, alone):
    for zero, way in ((2, "shared"), (3, "push")):
        arguments = ("learner.engine=deepspeed", f"learner.zero={zero}", "rollout.engine=vllm", "rollout.cache_gib=0.05")
        done, directory = train(f"zero{zero}", "--gpus", "2", *arguments)
        assert done.returncode == 0, done.stderr
        assert rollouts(directory) == rollouts(alone)
        steps = [row for row in metrics(directory) if "updates" in row]
        assert {row["rollout_engine"]["weights"] for row in steps} == {way}
        assert all(row["parity"]["largest"] < 2e-3 for row in steps)


@pytest.mark.slow  # 10 s each
@pytest.mark.parametrize(
    "point", ["learn", *(pytest.param(point, marks=pytest.mark.long) for point in ("sample", "grade", "save", "evaluate"))]
)
def test_a_rank_that_crashes_ends_all_and_is_the_one_heard_of(train, point):
    step = {"save": 3, "evaluate": 0}.get(point, 2)
    done, directory = train("run", "--gpus", "2", faults=f"{point}@{step}:1:raise")
    assert time.time() - (directory / "logs" / "rank_1.log").stat().st_mtime < 20  # its last words, before it ended
    assert done.returncode == 1
    assert f"InjectedFault: {point}@{step}:1:raise" in done.stderr
    assert done.stderr.rstrip().endswith("fastgrpo: rank 1 ended with exit code 1; the others were stopped")
    assert "lost touch" not in done.stderr
    ledger = rf"rank 1 stopped in the phase '{point}'; memory \d+\.\d\d GiB, \d+\.\d\d GiB at its peak"
    assert len(re.findall(ledger, done.stderr)) == 1
    log = (directory / "logs" / "rank_1.log").read_text()
    assert "Traceback (most recent call last)" in log and f"InjectedFault: {point}@{step}:1:raise" in log


@pytest.mark.long  # 25 s
def test_a_slow_rank_is_waited_for_and_named(train):
    done, directory = train("run", "--gpus", "2", faults="grade@2:1:slow")
    assert done.returncode == 0, done.stderr
    straggler = "rank 1 took 8 s for grade, where 0 s are usual"
    assert straggler in done.stdout and straggler in (directory / "logs" / "rank_0.log").read_text()
    assert done.stdout.count("are usual") == 1  # rank 0 only waited


@pytest.mark.slow  # 10 s each
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(
            "learn@2:1:kill", "fastgrpo: rank 1 was killed by SIGKILL in the phase 'learn'; the others were stopped", marks=pytest.mark.long
        ),
        pytest.param("sample@2:1:hang", "fastgrpo: rank 1 hangs: the phase 'sample' has taken", marks=pytest.mark.long),
        ("learn@2:0:hang", "fastgrpo: rank 0 hangs: the phase 'learn' has taken"),
    ],
)
def test_a_rank_that_dies_or_hangs_is_named(train, fault, words):
    done, _ = train("run", "--gpus", "2", "health.phase_seconds=4", faults=fault)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.slow  # 8 s
def test_a_number_that_is_not_finite_on_one_rank_ends_all_with_4_and_changes_no_weight(train):
    done, directory = train("run", "--gpus", "2", faults="learn@2:1:nan")
    assert done.returncode == 4
    assert "the gradient norm is nan" in done.stderr
    assert not (directory / "checkpoints" / "latest").exists()


@pytest.mark.long  # 25 s: two runs
def test_a_rank_with_too_little_memory_splits_its_packs_and_all_lower_their_budget(train):
    done, plain = train("plain", "--gpus", "2", "dtype=float64")
    assert done.returncode == 0, done.stderr
    done, short = train("short", "--gpus", "2", "dtype=float64", faults="memory@70:1:oom")
    assert done.returncode == 0, done.stderr
    assert rollouts(short) == rollouts(plain)
    first, *later = [row for row in metrics(short) if "updates" in row]
    assert first["out_of_memory"] > 0 and first["tokens_per_pack"] <= 70
    assert not any("out_of_memory" in row for row in later)
    assert all(update["packs"] > 1 for row in later for update in row["updates"])
    one, other = weights(plain), weights(short)
    assert all(torch.allclose(one[key], other[key], rtol=1e-9, atol=1e-12) for key in one)
    assert f"tokens_per_pack is {first['tokens_per_pack']} instead of 200" in (short / "logs" / "rank_0.log").read_text()


@requires_deepspeed
@pytest.mark.slow  # 12 s
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_deepspeed_says_what_to_lower_where_a_pack_does_not_fit(train, ranks):
    done, _ = train("run", "--gpus", str(ranks), "learner.engine=deepspeed", faults=f"memory@70:{ranks - 1}:oom")
    assert done.returncode == 3, done.stderr
    assert "DeepSpeed cannot take half a pass back: lower tokens_per_pack to" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus", "2", "steps=0"), "steps is 0"),
        (("--gpus", "9"), "prompts_per_step=6 leaves some of 9 ranks without a prompt"),
    ],
)
def test_a_wrong_setting_is_told_once_and_before_any_rank_starts(train, arguments, words):
    done, directory = train("run", *arguments)
    assert done.returncode == 2 and not directory.exists()
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (7, 1), (7, 3), (9, 3), (2, 5)])
def test_sharing_and_joining_keeps_all_in_order(count, size, monkeypatch):
    items = list(range(count))
    shares = [Ranks(rank, size).share(items) for rank in range(size)]
    monkeypatch.setattr(Ranks, "gather", lambda self, mine: shares)
    assert Ranks(0, size).join(shares[0]) == items
