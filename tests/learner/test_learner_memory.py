"""Passes that do not fit into memory: in parts they give what the whole gives; what cannot be split ends with what to lower."""

import random

import pytest
import torch
from exactness import TEMPERATURE, float64_model, learner_result, random_cut, random_updates, relative, sgd, without_silent
from test_trainer import easy_reward, final_weights, letter_problems, run

from fastgrpo.config import LossConfig
from fastgrpo.errors import SetupError
from fastgrpo.faults import VARIABLE
from fastgrpo.learner.memory import logprobs_in_parts
from fastgrpo.learner.native import NativeLearner
from fastgrpo.model import model_logprobs
from fastgrpo.packing import pack_one, split
from fastgrpo.types import TrainingSequence

__all__ = ["easy_reward", "letter_problems"]
PLAIN, WITH_REFERENCE = LossConfig(type="dr_grpo"), LossConfig(type="grpo", beta=0.1, entropy_coef=0.01)


def sequences(*lengths):
    """Sequences that the model reads as so many tokens, each with tokens, advantage and scale of its own."""
    return [
        TrainingSequence((n, n + 1), tuple(range(n, n + length - 1)), (-float(n),) * (length - 1), n + 1.0, 1.0 / (n + 1))
        for n, length in enumerate(lengths)
    ]


def same(one, other) -> bool:
    mine, theirs = one.tensors(), other.tensors()
    return (
        one.max_seqlen == other.max_seqlen
        and mine.keys() == theirs.keys()
        and all(torch.equal(mine[k], theirs[k]) and mine[k].dtype == theirs[k].dtype for k in mine)
    )


@pytest.mark.parametrize(("lengths", "first"), [((4, 4), 1), ((9, 2, 2, 3), 1), ((2, 2, 3, 9), 3), ((3, 3, 3, 3, 3), 2), ((2, 90), 1)])
def test_a_pack_is_split_into_the_packs_of_its_sequences_about_equally(lengths, first):
    whole = sequences(*lengths)
    for part, expected in zip(split(pack_one(whole)), (whole[:first], whole[first:]), strict=True):
        assert same(part, pack_one(expected))


def test_log_probs_are_split_with_their_tokens_and_one_sequence_has_no_parts():
    batch = pack_one(sequences(5, 6))
    old = torch.arange(float(batch.tokens))
    assert torch.equal(torch.cat([part.old_logprobs for part in split(batch.with_logprobs(old_logprobs=old))]), old)
    with pytest.raises(ValueError, match="one sequence"):
        split(pack_one(sequences(5)))


@pytest.mark.parametrize(
    ("loss", "fits"),
    [(PLAIN, 20), (WITH_REFERENCE, 30), *(pytest.param(*case, marks=pytest.mark.long) for case in ((PLAIN, 30), (WITH_REFERENCE, 20)))],
    ids=["plain, 20", "reference, 30", "plain, 30", "reference, 20"],
)
def test_gradients_in_parts_are_those_of_the_whole(tiny_model_dir, monkeypatch, loss, fits):
    rng = random.Random(3)
    cut = [random_cut(without_silent(part, loss), 2, rng) for part in random_updates(rng, loss, groups=6)]
    assert max(batch.tokens for part in cut for batch in part) > 2 * fits
    reference = float64_model(tiny_model_dir, 1) if loss.beta else None
    want = learner_result(float64_model(tiny_model_dir), reference, cut, loss, sgd)
    monkeypatch.setenv(VARIABLE, f"memory@{fits}:0:oom")
    got = learner_result(float64_model(tiny_model_dir), reference, cut, loss, sgd)
    assert all(relative(g, w) < 1e-12 for g, w in zip(got.gradients, want.gradients, strict=True))
    assert relative(got.delta, want.delta) < 1e-12


def test_statistics_and_logprobs_in_parts_are_those_of_the_whole(tiny_model_dir, monkeypatch):
    batch, model = pack_one(sequences(9, 12, 7, 10), torch.float64), float64_model(tiny_model_dir)
    learner = NativeLearner(model, LossConfig(type="dr_grpo"), TEMPERATURE, lambda update: 1e-3, 1.0)
    want, stats = model_logprobs(model, batch, TEMPERATURE), learner.backward(batch)
    monkeypatch.setenv(VARIABLE, "memory@12:0:oom")
    failed = []
    assert (logprobs_in_parts(model, batch, TEMPERATURE, failed) - want).abs().max() < 1e-12
    assert failed == [38, 21, 17]
    assert learner.backward(batch) == pytest.approx(stats, rel=1e-12)
    assert learner.out_of_memory == failed


def test_one_sequence_that_does_not_fit_ends_with_what_to_lower(tiny_model_dir, monkeypatch):
    monkeypatch.setenv(VARIABLE, "memory@11:0:oom")
    learner = NativeLearner(float64_model(tiny_model_dir), LossConfig(type="dr_grpo"), 1.0, lambda update: 1e-3, 1.0)
    for attempt in (learner.backward, lambda batch: learner.logprobs([batch])):
        with pytest.raises(SetupError, match=r"single sequence of 12 tokens .*learner.recompute=true, lower max_new_tokens") as error:
            attempt(pack_one(sequences(9, 12, 7), torch.float64))
        assert error.value.exit_code == 3


def test_a_run_goes_on_with_smaller_packs_and_learns_the_same(tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch):
    settings = ("dtype=float64", "loss.beta=0.1", "updates_per_rollout=2")
    _, rows, plain = run(tmp_path, tiny_model_dir, letter_problems, *settings, name="plain")
    assert not any("out_of_memory" in row for row in rows)
    monkeypatch.setenv(VARIABLE, "memory@80:0:oom")
    _, rows, short = run(tmp_path, tiny_model_dir, letter_problems, *settings, name="short")
    budget = rows[0]["tokens_per_pack"]
    assert rows[0]["out_of_memory"] > 0 and 40 <= budget <= 80
    assert "out_of_memory" not in rows[1] and all(update["packs"] > 1 for update in rows[1]["updates"])
    note = (short / "logs" / "rank_0.log").read_text()
    assert "step 1: " in note and f"tokens_per_pack is {budget} instead of 16384" in note
    one, other = final_weights(plain), final_weights(short)
    assert all(torch.allclose(one[name], other[name], rtol=1e-9, atol=1e-12) for name in one)


@pytest.mark.long  # 25 s
def test_a_resumed_run_keeps_the_smaller_budget_until_another_is_given(tmp_path, tiny_model_dir, letter_problems, easy_reward, monkeypatch):
    monkeypatch.setenv(VARIABLE, "memory@80:0:oom")
    run(tmp_path, tiny_model_dir, letter_problems, "steps=1", "updates_per_rollout=1")
    monkeypatch.delenv(VARIABLE)
    for settings, packs in ((["steps=2"], 2), (["steps=3", "tokens_per_pack=8000"], 1)):
        _, rows, _ = run(tmp_path, tiny_model_dir, letter_problems, "updates_per_rollout=1", *settings, resume="auto")
        assert all((update["packs"] > 1) == (packs > 1) for update in rows[-1]["updates"])
