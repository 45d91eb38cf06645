"""What is biased about GRPO, on fixed rollouts: how hard a token and a question pull, read off the gradient of the whole path."""

import random

import pytest
import torch

from fastgrpo.advantages import group_advantages
from fastgrpo.balance import Cost
from fastgrpo.config import load_config
from fastgrpo.loss import packed_loss
from fastgrpo.ranks import Ranks
from fastgrpo.types import Grade, Prompt, Rollout, ScoredGroup
from fastgrpo.updates import cut_updates, own_share

LENGTHS, BUDGET = (3, 6, 12, 24), 24


def group(number: int, rewards: list[float], lengths: tuple[int, ...], loss_type: str) -> ScoredGroup:
    rollouts = tuple(Rollout((1,) * length, (-1.0,) * length, "stop", "") for length in lengths)
    grades = tuple(Grade(reward, True, "ok") for reward in rewards)
    return ScoredGroup(Prompt(str(number), (2,), "a"), rollouts, grades, tuple(rewards), group_advantages(rewards, loss_type))


def pull_of_tokens(groups: list[ScoredGroup], loss_type: str) -> list[list[float]]:
    """How hard one token of each response pulls: the norm of the loss's gradient at its hidden state, where all states are alike."""
    settings = [f"loss.type={loss_type}", f"max_new_tokens={BUDGET}", "updates_per_rollout=1", "dtype=float64", "loss.truncation=keep"]
    settings += [f"prompts_per_step={len(groups)}", f"samples_per_prompt={len(groups[0].rollouts)}"]
    config = load_config("tiny", settings).config
    (sequences,) = cut_updates(groups, 1, config)
    packs, _ = own_share(sequences, config, Cost(1, 0), Ranks(), 10**6)
    head = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pulls: dict[tuple, float] = {}
    for batch in packs:
        hidden = torch.ones(int(batch.loss_mask.sum()), 4, dtype=torch.float64, requires_grad=True)
        packed_loss(hidden, head, batch, config.loss, temperature=1.0).loss.backward()
        norms = hidden.grad.norm(dim=1)
        marks = batch.advantages[batch.loss_mask], batch.position_ids[batch.loss_mask]
        ends = [*(marks[1] == 0).nonzero()[1:, 0].tolist(), len(norms)]
        start = 0
        for end in ends:
            own = norms[start:end]
            assert torch.allclose(own, own[:1])  # every token of a response pulls alike
            pulls[round(marks[0][start].item(), 9), end - start] = own[0].item()
            start = end
    return [
        [pulls.get((round(a, 9), rollout.length), 0.0) for a, rollout in zip(one.advantages, one.rollouts, strict=True)] for one in groups
    ]


@pytest.mark.parametrize(("loss_type", "short_pulls_harder"), [("grpo", True), ("grpo_no_std", True), ("dr_grpo", False)])
def test_a_token_of_a_long_wrong_answer_is_pushed_down_less_under_grpo_alone(loss_type, short_pulls_harder):
    right, *wrong = pull_of_tokens([group(0, [1.0, 0.0, 0.0, 0.0], LENGTHS, loss_type)], loss_type)[0]
    lengths = LENGTHS[1:]
    assert all(pull > 0 for pull in (right, *wrong))
    if short_pulls_harder:
        assert [pull * length for pull, length in zip(wrong, lengths, strict=True)] == pytest.approx([wrong[0] * lengths[0]] * 3)
        assert wrong[0] > 1.9 * wrong[1] > 3.6 * wrong[2]
    else:
        assert wrong == pytest.approx([wrong[0]] * 3)


def test_questions_weigh_as_one_over_their_standard_deviation_under_grpo_alone():
    rng = random.Random(0)
    for _ in range(20):
        rights = rng.sample(range(1, 8), 2)
        rewards = [[1.0] * right + [0.0] * (8 - right) for right in rights]
        lengths = tuple(range(3, 11))
        weight = {}
        for loss_type in ("grpo_no_length", "dr_grpo"):
            groups = [group(number, given, lengths, loss_type) for number, given in enumerate(rewards)]
            weight[loss_type] = [sum(p * n for p, n in zip(pulls, lengths, strict=True)) for pulls in pull_of_tokens(groups, loss_type)]
        spreads = [torch.tensor(given).std().item() for given in rewards]
        extra = [biased / plain for biased, plain in zip(weight["grpo_no_length"], weight["dr_grpo"], strict=True)]
        assert extra == pytest.approx([1 / spread for spread in spreads], rel=1e-6)
