"""The scored groups of a step: prompts drawn, G responses to each, their grades, advantages; groups without signal drawn again if asked.

What would surprise: a replacement comes from a stream of its own, without the step's other prompts, so the order of the main stream is
the same with and without replacements, and a function of seed and step alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastgrpo.advantages import group_advantages, group_rewards
from fastgrpo.data import draw_prompts
from fastgrpo.evaluate import request_seed
from fastgrpo.faults import fault
from fastgrpo.types import Prompt, Rollout, Sampling, ScoredGroup

if TYPE_CHECKING:
    from fastgrpo.config import Config
    from fastgrpo.rewards import Scorer
    from fastgrpo.rollout import RolloutEngine
    from fastgrpo.run import Run


@dataclass(frozen=True, slots=True)
class Experience:
    """The groups that a step learns from, and all that were drawn for it: with replacements these are more. The same on every rank."""

    groups: tuple[ScoredGroup, ...]
    drawn: tuple[ScoredGroup, ...]


def collect(step: int, config: Config, engine: RolloutEngine, scorer: Scorer, prompts: Sequence[Prompt], stop, run: Run) -> Experience:
    """Draws and scores the groups of one step; a group without signal is replaced up to `sampling.refill` times."""
    sampling = Sampling(config.temperature, config.max_new_tokens, stop)
    batch = draw_prompts(prompts, config.prompts_per_step, step, config.seed)
    groups = draw_groups(batch, (step,), step, config, engine, scorer, sampling, run)
    drawn = list(groups)
    for attempt in range(1, config.sampling.refill + 1):
        silent = [place for place, group in enumerate(groups) if not group.has_signal]
        others = draw_replacements(prompts, len(silent), {group.prompt.id for group in drawn}, step, attempt, config.seed)
        if not others:
            break
        fresh = draw_groups(others, (step, "refill", attempt), step, config, engine, scorer, sampling, run)
        drawn += fresh
        for place, group in zip(silent, (group for group in fresh if group.has_signal), strict=False):  # silent places may outnumber them
            groups[place] = group
    with run.phase("sample"):
        engine.sleep()
    return Experience(tuple(groups), tuple(drawn))


def draw_groups(
    prompts: Sequence[Prompt],
    stream: tuple,
    step: int,
    config: Config,
    engine: RolloutEngine,
    scorer: Scorer,
    sampling: Sampling,
    run: Run,
) -> list[ScoredGroup]:
    """G responses to each prompt, each handed to the scorer as it ends. `stream` separates the seeds of different draws.

    Each rank draws and scores whole groups, its share of the prompts, and is given what the others drew. A seed belongs to the
    prompt's place in the batch, so that a response is the same on any number of ranks.
    """
    places, mine = run.ranks.share(range(len(prompts))), run.ranks.share(prompts)

    def submit(i: int, j: int, rollout: Rollout) -> None:
        scorer.submit(i, j, mine[i], rollout)

    n = config.samples_per_prompt
    seeds = [
        [request_seed(config.seed, *stream, place, prompt.id, j) for j in range(n)] for place, prompt in zip(places, mine, strict=True)
    ]
    with run.phase("sample"):
        fault("sample", step)
        rollouts = engine.generate(mine, n, sampling, seeds, on_finished=submit)
    with run.phase("grade"):
        fault("grade", step)
        grades, groups = scorer.results(), []
        for i, (prompt, group) in enumerate(zip(mine, rollouts, strict=True)):
            verdicts = tuple(grades[i, j] for j in range(n))
            rewards = group_rewards(verdicts, group, config.loss.truncation, config.max_new_tokens)
            groups.append(ScoredGroup(prompt, group, verdicts, rewards, group_advantages(rewards, config.loss.type)))
    with run.phase("wait"):
        return run.ranks.join(groups)


def draw_replacements(prompts: Sequence[Prompt], count: int, taken: set[str], step: int, attempt: int, seed: int) -> list[Prompt]:
    """Up to `count` prompts whose ids are not `taken`, without repetition."""
    others = [prompt for prompt in prompts if prompt.id not in taken]
    return random.Random(f"{seed}/refill {step}.{attempt}").sample(others, min(count, len(others)))
