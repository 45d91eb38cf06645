"""The groups of a step: who is drawn, with which seeds, and what becomes of groups without signal."""

import pytest

from fastgrpo.config import load_config
from fastgrpo.experience import collect
from fastgrpo.metrics import experience_metrics
from fastgrpo.ranks import Ranks
from fastgrpo.types import Grade, Prompt, Rollout

PROMPTS = [Prompt(f"p{i}", (1, i), "7") for i in range(40)]


class Clock:
    """Stands for a run: phases pass."""

    ranks = Ranks()

    def phase(self, name):
        from contextlib import nullcontext

        return nullcontext()


class Engine:
    """One token a response, chosen by its seed."""

    def __init__(self):
        self.asked = []

    def generate(self, prompts, n, sampling, seeds, on_finished):
        self.asked.append([prompt.id for prompt in prompts])
        groups = [tuple(Rollout((seed % 97,), (-1.0,), "stop", str(seed)) for seed in row) for row in seeds]
        for i, group in enumerate(groups):
            for j, rollout in enumerate(group):
                on_finished(i, j, rollout)
        return groups

    def sleep(self): ...


class Scorer:
    """Right for every other sample of the prompts in `mixed`, wrong for all others."""

    def __init__(self, mixed):
        self.mixed, self.grades = mixed, {}

    def submit(self, i, j, prompt, rollout):
        self.grades[i, j] = Grade(float(prompt.id in self.mixed and j % 2), True, "ok")

    def results(self):
        grades, self.grades = self.grades, {}
        return grades


def step(refill, mixed, number=1, seed=0, prompts=PROMPTS):
    settings = ["prompts_per_step=10", "samples_per_prompt=4", "updates_per_rollout=1", f"sampling.refill={refill}", f"seed={seed}"]
    engine = Engine()
    config = load_config("tiny", settings).config
    return collect(number, config, engine, Scorer(mixed), prompts, (), Clock()), engine


def ids(groups):
    return [group.prompt.id for group in groups]


def test_without_refill_silent_groups_stay():
    experience, engine = step(0, mixed={"p1"})
    assert len(engine.asked) == 1
    assert experience.groups == experience.drawn
    assert "refill" not in experience_metrics(experience.groups, experience.drawn)


def test_silent_groups_are_replaced_by_ones_with_signal_and_the_others_stay_where_they_were():
    mixed = {f"p{i}" for i in range(0, 40, 2)}
    plain, _ = step(0, mixed)
    experience, engine = step(1, mixed)
    kept = [place for place, group in enumerate(plain.groups) if group.has_signal]
    assert all(experience.groups[place] == plain.groups[place] for place in kept)
    silent = len(plain.groups) - len(kept)
    assert 0 < silent == len(engine.asked[1])
    fresh = [group for group in experience.drawn[10:] if group.has_signal]
    assert [group for place, group in enumerate(experience.groups) if place not in kept][: len(fresh)] == fresh
    metrics = experience_metrics(experience.groups, experience.drawn)
    assert metrics["refill"]["drawn"] == silent
    assert metrics["refill"]["replaced"] == len(fresh) > 0
    rewards = [reward for group in experience.drawn for reward in group.rewards]
    assert metrics["refill"]["reward"] == pytest.approx(sum(rewards) / len(rewards))
    assert metrics["reward"] > metrics["refill"]["reward"]


def test_refilling_is_bounded_and_never_repeats_a_prompt():
    experience, engine = step(3, mixed=set())
    assert [len(asked) for asked in engine.asked] == [10, 10, 10, 10]
    assert len(set(ids(experience.drawn))) == 40
    assert ids(experience.groups) == engine.asked[0]


def test_refilling_ends_with_the_signal_or_with_the_prompts():
    assert len(step(5, mixed=set(ids_of_all()))[1].asked) == 1
    _, engine = step(5, mixed=set(), prompts=PROMPTS[:15])
    assert [len(asked) for asked in engine.asked] == [10, 5]


def ids_of_all():
    return [prompt.id for prompt in PROMPTS]


def test_replacements_depend_on_seed_and_step_alone_and_leave_the_main_stream_alone():
    mixed = {f"p{i}" for i in range(0, 40, 3)}
    assert step(2, mixed)[0] == step(2, mixed)[0]
    assert step(2, mixed)[0].drawn != step(2, mixed, seed=1)[0].drawn
    assert step(2, mixed, number=2)[1].asked[0] == step(0, mixed, number=2)[1].asked[0]


def test_every_response_of_a_step_has_its_own_seed():
    experience, _ = step(2, mixed={"p3"})
    texts = [rollout.text for group in experience.drawn for rollout in group.rollouts]
    assert len(set(texts)) == len(texts)
