"""The loop on a tiny random model: when old log-probs are taken, what stops a run, what changes nothing, and that reruns are identical."""

import dataclasses
import itertools
import json
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastgrpo import evaluate, trainer
from fastgrpo.balance import Cost
from fastgrpo.config import load_config
from fastgrpo.errors import HealthError, InputError
from fastgrpo.launch import launch
from fastgrpo.ranks import Ranks
from fastgrpo.types import Grade, Prompt, Rollout, ScoredGroup
from fastgrpo.updates import cut_updates, own_share

SMALL = [
    "dtype=float32",
    "steps=2",
    "prompts_per_step=6",
    "samples_per_prompt=4",
    "updates_per_rollout=4",
    "max_new_tokens=12",
    "lr=1e-3",
    "loss.truncation=keep",
    "reward.preflight=false",  # some of these rewards are made up
]


class Silent:
    """Nobody watches."""

    def begin(self, name, steps): ...

    def phase(self, name): ...

    def row(self, row): ...

    def note(self, text): ...

    def end(self): ...


def write_letter_problems(folder: Path) -> Path:
    """The gold is a letter that a random byte model boxes by chance: a reward that varies without any skill."""
    rows = [{"problem": rf"The letter is \boxed{{{letter}" * 2, "answer": letter} for letter in "abcdefgh"]
    path = folder / "letters.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def letter_problems(tmp_path) -> Path:
    return write_letter_problems(tmp_path)


@pytest.fixture
def easy_reward(monkeypatch):
    """Reward 1 for half of all texts, by their checksum, with no grader in the way."""

    def grades(self):
        texts, self.texts = getattr(self, "texts", {}), {}
        return {key: Grade(float(zlib.crc32(text.encode()) % 2), True, "ok") for key, text in texts.items()}

    def submit(self, key, text, gold):
        self.texts = getattr(self, "texts", {}) | {key: text}

    monkeypatch.setattr("fastgrpo.rewards.Grader.results", grades)
    monkeypatch.setattr("fastgrpo.rewards.Grader.submit", submit)


def run(tmp_path, model, problems, *overrides, name="run", resume="never"):
    directory = tmp_path / name
    settings = [*SMALL, f"model={model}", f"data.train={problems}", "data.eval=[]", f"run_dir={directory}", *overrides]
    summary, _ = launch(load_config("tiny", settings), Silent(), resume)
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return summary, [row for row in rows if "updates" in row], directory


def without_times(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def final_weights(directory):
    return load_file(directory / "checkpoints" / "latest" / "model.safetensors")


def test_clipping_starts_after_the_first_update(tmp_path, tiny_model_dir, letter_problems, easy_reward):
    _, rows, _ = run(tmp_path, tiny_model_dir, letter_problems, "updates_per_rollout=8", "lr=2e-2")
    for row in rows:
        clipped = [update["clip_low"] + update["clip_high"] for update in row["updates"]]
        assert clipped[0] == 0
        assert max(clipped[1:]) > 0.1
        assert row["updates"][0]["ratio_max"] == 1.0


def test_old_logprobs_are_taken_before_the_first_step(tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch):
    """Recomputed after the steps, every ratio would be 1 and nothing ever clipped: this looks at the numbers themselves."""
    seen = []
    honest = trainer.update

    def spy(packs, step, config, parts, run, progress):
        seen.extend((batch, number) for number, batch in enumerate(packs) if batch.old_logprobs is not None)
        now = parts.learner.logprobs(packs)
        drift = [
            (n - b.old_logprobs)[b.loss_mask].abs().max().item() for n, b in zip(now, packs, strict=True) if b.old_logprobs is not None
        ]
        drifts.extend(drift)
        return honest(packs, step, config, parts, run, progress)

    drifts = []
    monkeypatch.setattr(trainer, "update", spy)
    run(tmp_path, tiny_model_dir, letter_problems, "steps=1", "lr=2e-2", "updates_per_rollout=4")
    assert len(drifts) == 3
    assert min(drifts) > 0.05


def test_one_update_runs_no_old_pass(tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch):
    def refuse(self, batch):
        raise AssertionError("an old pass was run")

    monkeypatch.setattr("fastgrpo.learner.native.NativeLearner.logprobs", refuse)
    _, rows, _ = run(tmp_path, tiny_model_dir, letter_problems, "updates_per_rollout=1")
    assert [len(row["updates"]) for row in rows] == [1, 1]


@pytest.mark.parametrize("loss", ["grpo", "grpo_no_std", "grpo_no_length", "token_mean", "dr_grpo"])
def test_the_same_seed_twice_is_identical(tmp_path, tiny_model_dir, letter_problems, easy_reward, loss):
    runs = [run(tmp_path, tiny_model_dir, letter_problems, f"loss.type={loss}", name=name) for name in ("first", "second")]
    assert without_times(runs[0][1]) == without_times(runs[1][1])
    first, second = (final_weights(directory) for _, _, directory in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    _, other, _ = run(tmp_path, tiny_model_dir, letter_problems, f"loss.type={loss}", "seed=1", name="third")
    assert without_times(other) != without_times(runs[0][1])


def test_evaluating_and_saving_change_no_training(tmp_path, tiny_model_dir, letter_problems):
    plain = run(tmp_path, tiny_model_dir, letter_problems, name="plain")
    busy = run(tmp_path, tiny_model_dir, letter_problems, f"data.eval={letter_problems}", "eval.every=1", "checkpoint.every=1", name="busy")
    assert without_times(plain[1]) == without_times(busy[1])
    assert sorted(path.name for path in (busy[2] / "checkpoints").iterdir()) == ["latest", "step_1", "step_2"]
    assert busy[0]["problems"] == 8
    assert plain[0]["accuracy_before"] is None
    rows = [json.loads(line) for line in (busy[2] / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "evaluation" in row) for row in rows] == [(0, True), (1, False), (1, True), (2, False), (2, True)]
    assert len((plain[2] / "metrics.jsonl").read_text().splitlines()) == 2


def test_packing_changes_the_speed_and_hardly_a_bit_of_the_result(tmp_path, tiny_model_dir, letter_problems, easy_reward):
    """float64 and SGD-like sizes would be exact; in float32 the first update's gradient norm agrees to rounding."""
    norms = [
        run(tmp_path, tiny_model_dir, letter_problems, f"tokens_per_pack={tokens}", "dtype=float64", "steps=1", name=str(tokens))[1][0][
            "updates"
        ]
        for tokens in (20, 10_000)
    ]
    for small, large in zip(*norms, strict=True):
        assert small["grad_norm"] == pytest.approx(large["grad_norm"], rel=1e-6)


def test_a_reference_model_exists_only_with_beta(tmp_path, tiny_model_dir, letter_problems, easy_reward):
    _, without, _ = run(tmp_path, tiny_model_dir, letter_problems, name="without")
    assert "ref_kl" not in without[0]["updates"][0]
    _, rows, _ = run(tmp_path, tiny_model_dir, letter_problems, "loss.beta=0.1", name="with")
    assert rows[0]["updates"][0]["ref_kl"] == 0.0  # the policy is the reference before the first update
    assert rows[1]["updates"][-1]["ref_kl"] > 0.0
    assert rows[0]["updates"][0]["tokens"] > without[0]["updates"][0]["tokens"]  # silent groups feel the KL term: they stay


def test_importance_weights_are_reported_and_sampler_logprobs_may_stand_for_old_ones(
    tmp_path, tiny_model_dir, letter_problems, easy_reward
):
    _, rows, _ = run(tmp_path, tiny_model_dir, letter_problems, "loss.tis_cap=2.0", name="tis")
    assert rows[0]["updates"][0]["tis_weight"] == pytest.approx(1.0, abs=1e-4)
    assert rows[0]["updates"][0]["logprob_gap_max"] < 1e-4
    _, rows, _ = run(tmp_path, tiny_model_dir, letter_problems, "loss.tis_cap=2.0", "old_logprobs=sampler", name="sampler")
    assert 1.0 != rows[0]["updates"][0]["ratio_max"] < 1.001


def test_equal_rewards_for_k_steps_stop_the_run(tmp_path, tiny_model_dir, letter_problems):
    with pytest.raises(HealthError, match="step 3: no group had two different rewards for 3 steps"):
        run(tmp_path, tiny_model_dir, letter_problems, "steps=9", "health.steps_without_signal=3", "max_new_tokens=2")


def test_an_update_without_a_finite_gradient_is_skipped_and_its_packs_are_kept(
    tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch
):
    monkeypatch.setenv("FASTGRPO_FAULTS", "learn@2:0:nan")
    settings = ("updates_per_rollout=1", "steps=3", "checkpoint.every=1", "checkpoint.keep=9")
    _, rows, directory = run(tmp_path, tiny_model_dir, letter_problems, *settings)
    assert [row["updates"][0].get("skipped", 0) for row in rows] == [0, 1, 0]
    weights = [load_file(directory / "checkpoints" / f"step_{step}" / "model.safetensors") for step in (1, 2, 3)]
    same = [all(torch.equal(one[name], other[name]) for name in one) for one, other in itertools.pairwise(weights)]
    assert same == [True, False]
    (dump,) = (directory / "dumps").iterdir()
    assert dump.name == "step_000002-update_1-rank_0.safetensors"
    tensors = load_file(dump)
    assert tensors["0/scale"].isnan().any() and tensors["0/input_ids"].dtype == torch.int64


def test_losses_that_are_not_finite_stop_the_run_before_any_update(tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch):
    monkeypatch.setenv("FASTGRPO_FAULTS", "learn@2:0:nan")
    with pytest.raises(HealthError, match=r"3 updates in a row had no finite gradient.*the gradient norm is nan"):
        run(tmp_path, tiny_model_dir, letter_problems, "checkpoint.every=1")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.is_dir() and not path.is_symlink()] == ["step_1"]


def group(number: int, rewards, lengths):
    rollouts = tuple(Rollout((7,) * n, (-1.0,) * n, "length" if n == 12 else "stop", "") for n in lengths)
    grades = tuple(Grade(r, True, "ok") for r in rewards)
    mean = sum(rewards) / len(rewards)
    return ScoredGroup(Prompt(str(number), (1, 2), "a"), rollouts, grades, tuple(rewards), tuple(r - mean for r in rewards))


def settings(*overrides):
    return load_config("tiny", [*SMALL, *overrides]).config


def pack_updates(groups, step, config):
    """The packs of each update, on one rank."""
    return [own_share(part, config, Cost(1, 0), Ranks(), 10**6)[0] for part in cut_updates(groups, step, config)]


def test_silent_groups_are_dropped_and_the_divisor_stays():
    groups = [group(0, (1.0, 1.0, 1.0, 1.0), (3, 4, 5, 6)), group(1, (1.0, 0.0, 0.0, 0.0), (3, 4, 5, 6))]
    one = settings("updates_per_rollout=1")
    pulled = settings("updates_per_rollout=1", "loss.beta=0.1")  # by the KL term: every sequence has a gradient
    (dropped,), (kept,) = pack_updates(groups, 1, one), pack_updates(groups, 1, pulled)
    assert sum(int(batch.loss_mask.sum()) for batch in dropped) == 18
    assert sum(int(batch.loss_mask.sum()) for batch in kept) == 36
    for batch in (*dropped, *kept):
        assert torch.allclose(batch.scale[batch.loss_mask], torch.tensor(1 / (8 * 12)))


def test_masked_truncated_responses_weigh_nothing_and_count_in_b():
    groups = [group(0, (1.0, 0.0, 0.0, 0.0), (3, 12, 5, 6))]
    (packs,) = pack_updates(groups, 1, settings("updates_per_rollout=1", "loss.truncation=mask"))
    assert sum(int(batch.loss_mask.sum()) for batch in packs) == 14
    assert torch.allclose(packs[0].scale[packs[0].loss_mask], torch.tensor(1 / (4 * 12)))


def test_responses_are_permuted_over_updates_and_each_is_used_once():
    groups = [group(i, (1.0, 0.0, 1.0, 0.0), (1 + i, 2 + i, 3 + i, 4 + i)) for i in range(8)]
    updates = pack_updates(groups, 1, settings())
    assert len(updates) == 4
    lengths = [sorted(torch.cat([b.cu_seqlens.diff() for b in packs]).tolist()) for packs in updates]
    assert all(len(part) == 8 for part in lengths)
    assert sorted(length for part in lengths for length in part) == sorted(1 + len(r.token_ids) for g in groups for r in g.rollouts)
    again = pack_updates(groups, 2, settings())
    assert [sorted(torch.cat([b.cu_seqlens.diff() for b in packs]).tolist()) for packs in again] != lengths


def test_frozen_types_refuse_what_cannot_be(tiny_model_dir):
    with pytest.raises(ValueError, match="at least one of each"):
        Rollout((), (), "stop", "")
    with pytest.raises(ValueError, match="finish_reason"):
        Rollout((1,), (-1.0,), "eos", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Prompt("a", (1,), "x").id = "b"


def test_a_budget_beyond_the_models_context_is_refused(tmp_path, tiny_model_dir, letter_problems):
    with pytest.raises(InputError, match="max_new_tokens=1000 more exceed the model's context of 1024"):
        run(tmp_path, tiny_model_dir, letter_problems, "max_new_tokens=1000")


def test_an_evaluation_that_fails_is_left_out_but_for_the_first(tmp_path, tiny_model_dir, letter_problems, monkeypatch):
    honest, calls = evaluate.evaluate, []

    def failing(*arguments, **named):
        calls.append(len(calls))
        if len(calls) in failures:
            raise RuntimeError("the engine died")
        return honest(*arguments, **named)

    monkeypatch.setattr(evaluate, "evaluate", failing)
    settings = (
        f"data.eval={letter_problems}",
        "eval.every=1",
        "eval.ways=[greedy]",
        "eval.verifier=fast",
        "checkpoint.best=greedy_average",
    )
    failures = {2}
    summary, _, directory = run(tmp_path, tiny_model_dir, letter_problems, *settings)
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "evaluation" in row] == [0, 2] and summary["greedy_after"] is not None
    assert "step 1: the evaluation failed and is left out" in (directory / "logs" / "rank_0.log").read_text()
    failures = {len(calls) + 1}
    with pytest.raises(RuntimeError, match="the engine died"):
        run(tmp_path, tiny_model_dir, letter_problems, *settings, name="first")
