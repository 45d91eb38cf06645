"""What `--resume` finds and what it refuses: flawed checkpoints, changed settings and data, used directories."""

import os
import shutil

import pytest
from outcomes import differences, outcome
from resuming import rows, runs, undisturbed
from test_trainer import easy_reward

from fastgrpo.checkpoint import steps
from fastgrpo.errors import InputError
from fastgrpo.faults import InjectedFault
from fastgrpo.manifest import MANIFEST

__all__ = ["easy_reward", "runs", "undisturbed"]
STATE = "trainer/state-00000.safetensors"


@pytest.fixture
def crashed(runs):
    """Saved after 0 (the best), 3 and 5, and died in step 6."""
    with pytest.raises(InjectedFault):
        runs("run", "checkpoint.every=1", faults="learn@6:0:raise")
    assert [step for step, _ in steps(runs / "run" / "checkpoints")][:2] == [5, 4]
    return runs


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path) -> None:
    os.truncate(path, path.stat().st_size // 2)


FLAWS = [
    (flip, STATE, f"{STATE} is corrupted"),
    (flip, "model.safetensors", "model.safetensors is corrupted"),
    (cut, STATE, f"{STATE} has "),
    (os.unlink, "trainer/progress.json", "trainer/progress.json is missing"),
    (os.unlink, str(MANIFEST), "trainer/manifest.json is missing"),
    (cut, str(MANIFEST), "trainer/manifest.json cannot be read"),
]


@pytest.mark.parametrize(("spoil", "name", "words"), FLAWS)
def test_of_a_flawed_checkpoint_the_one_before_is_used_and_the_warning_names_the_file(crashed, undisturbed, spoil, name, words):
    newest = crashed / "run" / "checkpoints" / "step_5"
    spoil(newest / name)
    with pytest.raises(InputError, match=f"--resume .*step_5 cannot be used: {words}"):
        crashed("run", "checkpoint.every=1", resume=newest)
    told = crashed("run", "checkpoint.every=1", resume="auto")
    assert f"step_5 is not used: {words}" in told and "resuming after step 4" in told
    assert (newest.with_name("step_5.flawed") / "config.json").exists()
    assert differences(undisturbed, outcome(crashed / "run")) == []


def test_twice_flawed_and_none_whole(crashed):
    for _ in range(2):
        flip(crashed / "run" / "checkpoints" / "step_5" / STATE)
        with pytest.raises(InjectedFault):
            crashed("run", "checkpoint.every=1", resume="auto", faults="learn@6:0:raise")
    for _, path in steps(crashed / "run" / "checkpoints"):
        cut(path / STATE)
    before = (crashed / "run" / "metrics.jsonl").read_text()
    for request in ("auto", crashed / "run"):
        with pytest.raises(InputError, match=r"no checkpoint .*is whole"):
            crashed("run", resume=request)
    assert (crashed / "run" / "metrics.jsonl").read_text() == before


def test_a_stale_latest_is_told_of_and_mended(crashed):
    latest = crashed / "run" / "checkpoints" / "latest"
    latest.unlink()
    latest.symlink_to("step_4")
    assert "latest does not point to step_5, the newest that is whole" in crashed("run", "steps=5", "checkpoint.every=1", resume="auto")
    assert os.readlink(latest) == "step_5"


def test_never_and_auto(crashed, undisturbed):
    with pytest.raises(InputError, match="already holds files") as told:
        crashed("run", resume="never")
    assert told.value.exit_code == 2
    assert "nothing to resume: a new run starts" in crashed("fresh", resume="auto")
    assert differences(undisturbed, outcome(crashed / "fresh")) == []
    (crashed / "mine").mkdir()
    (crashed / "mine" / "notes").write_text("")
    with pytest.raises(InputError, match="already holds files"):  # not a run: nothing of it is touched
        crashed("mine", resume="auto")


def test_auto_without_a_directory_takes_the_newest_unfinished(runs):
    assert "a new run starts" in runs(None, "checkpoint.every=1", "steps=1", resume="auto")
    (first,) = (runs / "runs").iterdir()
    assert first.name.startswith("tiny-2")
    first.rename(first.with_name("tiny-20250101-000000"))  # a second ago, and more
    assert "a new run starts" in runs(None, "steps=1", resume="auto")  # that one is finished
    shutil.rmtree(runs / "runs")
    for name in ("tiny-20260101-000000", "tiny-20260102-000000", "tiny-large-20270101-000000", "tiny-20260103-000000"):
        with pytest.raises(InjectedFault):
            runs(f"runs/{name}", "checkpoint.every=1", faults="learn@3:0:raise")
    (runs / "runs" / "tiny-20260103-000000" / "summary.json").write_text("{}")
    assert "resuming after step 2 of runs/tiny-20260102-000000" in runs(None, "checkpoint.every=1", resume="auto")
    assert (runs / "runs" / "tiny-20260102-000000" / "summary.json").exists()


def test_a_path_is_a_run_or_a_checkpoint(crashed, undisturbed):
    shutil.copytree(crashed / "run", crashed / "other", symlinks=True)
    crashed("run", "checkpoint.every=1", resume=crashed / "run")
    crashed("other", "checkpoint.every=1", resume=crashed / "other" / "checkpoints" / "latest")
    assert differences(undisturbed, outcome(crashed / "run")) == []
    assert differences(undisturbed, outcome(crashed / "other")) == []
    for path in ("nowhere", "run/checkpoints/step_77", "run/checkpoints/step_5.flawed", "run/rollouts"):
        with pytest.raises(InputError, match=r"--resume .*(is whole|there is no such directory)"):
            crashed("run", resume=crashed / path)


def test_an_earlier_checkpoint_is_a_branch(crashed, undisturbed):
    older = crashed / "run" / "checkpoints" / "step_4"
    flip(crashed / "run" / "checkpoints" / "step_5" / STATE)
    crashed("run", "checkpoint.every=1", "checkpoint.keep=9", "steps=6", resume="auto")  # goes on to 5 and 6
    with pytest.raises(InputError, match=r"the run has gone on to step_6\. Give another run_dir to branch off"):
        crashed("run", resume=older)
    flip(crashed / "run" / "checkpoints" / "step_6" / STATE)
    with pytest.raises(InputError, match="the run has gone on to step_5"):
        crashed("run", resume=older)
    before = sorted(str(path) for path in (crashed / "run").rglob("*"))
    with pytest.raises(InjectedFault):
        crashed("branch", resume=older, faults="learn@5:0:raise")
    assert not (crashed / "branch" / "checkpoints" / "latest").is_symlink()  # to nothing
    assert rows(crashed / "branch") == rows(crashed / "run")[: len(rows(crashed / "branch"))]
    with pytest.raises(InputError, match="already holds files"):
        crashed("branch", resume=older)
    crashed("second", resume=older)
    assert sorted(str(path) for path in (crashed / "run").rglob("*")) == before
    found = outcome(crashed / "second")
    assert [part for part in ("weights", "state", "rows", "summary") if found[part] != undisturbed[part]] == []


def test_settings_that_do_not_change_the_algorithm_may_change(crashed):
    told = crashed("run", "checkpoint.every=2", "lr=1e-4", "tokens_per_pack=100", resume="auto")
    for line in ("lr: 0.001 -> 0.0001", "tokens_per_pack: 16384 -> 100", "checkpoint.every: 1 -> 2"):
        assert f"changed since step_5: {line}" in told
    assert rows(crashed / "run")[-2]["updates"][0]["lr"] == 1e-4 != rows(crashed / "run")[-3]["updates"][0]["lr"]


def test_others_are_refused_with_the_difference_unless_insisted_on(crashed):
    changed = ("checkpoint.every=1", "loss.type=grpo", "seed=5", "lr=1e-4")
    with pytest.raises(InputError, match=r"loss\.type: 'dr_grpo' -> 'grpo'") as told:
        crashed("run", *changed, resume="auto")
    assert "seed: 0 -> 5" in str(told.value) and "lr" not in str(told.value) and "--allow-changes" in str(told.value)
    assert "loss.type: 'dr_grpo' -> 'grpo'" in crashed("run", *changed, resume="auto", allowed=True)


def test_edited_data_is_refused_unless_insisted_on(crashed):
    crashed.write_problems("abcdefgz")
    with pytest.raises(InputError, match=r"letters\.jsonl changed since .*step_5"):
        crashed("run", "checkpoint.every=1", resume="auto")
    assert "letters.jsonl changed since step_5" in crashed("run", "checkpoint.every=1", resume="auto", allowed=True)


def test_a_finished_run_writes_the_same_summary_and_can_be_extended(runs, undisturbed, monkeypatch):
    runs("run", "steps=4")
    short = outcome(runs / "run")
    with monkeypatch.context() as patch:
        patch.setattr("fastgrpo.trainer.learn_step", None)
        patch.setattr("fastgrpo.trainer.evaluate_now", None)
        runs("run", "steps=4", resume="auto")
    assert differences(short, outcome(runs / "run")) == []
    with pytest.raises(InputError, match=r"steps=3, but .*run has already done 4"):
        runs("run", "steps=3", resume="auto")
    runs("run", "steps=6", resume="auto")
    assert differences(undisturbed, outcome(runs / "run")) == []
