"""Whole processes killed by SIGKILL and resumed, on one rank and two, with both learners: bit for bit; on other ranks, the same data."""

import pytest
import torch
from outcomes import differences, outcome, rows, tables
from rollout.colocation import requires_vllm
from test_ranks import command, problems, requires_deepspeed, train, weights
from test_trainer import easy_reward, letter_problems, run
from test_trainer_vllm import VLLM, responses

from fastgrpo.errors import Preempted
from fastgrpo.faults import InjectedFault

__all__ = ["command", "easy_reward", "letter_problems", "problems", "train"]
SIX = ("steps=6", "checkpoint.every=3", "eval.every=2", "checkpoint.best=greedy_average")


def killed(train, name, *arguments):
    """A run that was killed in its fifth step, and had saved the third."""
    done, directory = train(name, *SIX, *arguments, faults="sample@5:0:kill")
    assert done.returncode in (-9, 1), done.stderr  # 1 says the launcher of several ranks
    assert not (directory / "summary.json").exists()
    return directory


def resumed(train, name, *arguments):
    done, directory = train(name, *SIX, *arguments, "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in (directory / "logs" / "rank_0.log").read_text()
    return directory


@pytest.mark.slow  # 30 s on two busy cores: three runs
def test_a_killed_process_goes_on_bit_for_bit(train):
    done, straight = train("straight", *SIX)
    assert done.returncode == 0, done.stderr
    killed(train, "killed")
    assert differences(outcome(straight, but=()), outcome(resumed(train, "killed"), but=())) == []


@pytest.mark.long  # 40 s: three runs
def test_a_killed_process_goes_on_on_two_ranks_with_the_same_data(train):
    done, straight = train("straight", *SIX)
    assert done.returncode == 0, done.stderr
    killed(train, "killed")
    spread = resumed(train, "killed", "--gpus", "2", "tokens_per_pack=64")
    first = sorted(tables(straight / "rollouts"))[3]
    for field in ("prompt_id", "sample", "token_ids", "reward", "advantage"):
        of_both = [[row[field] for row in tables(one / "rollouts")[first]] for one in (straight, spread)]
        assert of_both[0] == of_both[1], field
    for one, other in zip(rows(straight), rows(spread), strict=True):
        for mine, theirs in zip(one.get("updates", []), other.get("updates", []), strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4, abs=1e-6)
    one, other = weights(straight), weights(spread)
    assert all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in one)


@pytest.mark.slow  # 35 s each: three runs of two ranks, and two more
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param((), marks=pytest.mark.long),
        pytest.param(("learner.engine=deepspeed", "learner.zero=2"), marks=requires_deepspeed),
    ],
    ids=["native", "zero2"],
)
def test_two_ranks_go_on_bit_for_bit(train, engine):
    two = (*engine, "--gpus", "2")
    done, straight = train("straight", *SIX, *two)
    assert done.returncode == 0, done.stderr
    want = outcome(straight, but=())
    killed(train, "killed", *two)
    assert differences(want, outcome(resumed(train, "killed", *two), but=())) == []
    if not engine:  # only rank 1 hears the signal
        done, directory = train("stopped", *SIX, *two, faults="learn@4:1:stop")
        assert done.returncode != 0 and (directory / "checkpoints" / "latest").readlink().name == "step_4"
        for rank in (0, 1):
            assert "stopped: Preempted: SIGTERM" in (directory / "logs" / f"rank_{rank}.log").read_text()
        assert differences(want, outcome(resumed(train, "stopped", *two), but=())) == []


@requires_vllm
@pytest.mark.long  # 30 s: three engines are built
def test_with_vllm_the_next_step_has_the_same_prompts_and_responses(tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch):
    both = ("lr=1e-4", "steps=3", "checkpoint.every=2", *VLLM)
    _, _, straight = run(tmp_path, tiny_model_dir, letter_problems, *both, name="straight")
    monkeypatch.setenv("FASTGRPO_FAULTS", "learn@3:0:raise")
    with pytest.raises(InjectedFault):
        run(tmp_path, tiny_model_dir, letter_problems, *both, name="crashed")
    monkeypatch.setenv("FASTGRPO_FAULTS", "")
    _, _, crashed = run(tmp_path, tiny_model_dir, letter_problems, *both, name="crashed", resume="auto")
    assert responses(crashed, 3) == responses(straight, 3)
    assert len(rows(crashed)) == len(rows(straight)) == 3


@requires_vllm
@pytest.mark.slow  # 8 s
def test_with_vllm_a_signal_is_heard(tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch):
    monkeypatch.setenv("FASTGRPO_FAULTS", "sample@2:0:stop")
    with pytest.raises(Preempted, match="SIGTERM"):
        run(tmp_path, tiny_model_dir, letter_problems, *VLLM, "lr=1e-4")
    assert (tmp_path / "run" / "checkpoints" / "latest").readlink().name == "step_1"
