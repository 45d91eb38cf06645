"""The contestants of `bench_step`, each in a process of its own: generation and learning of every step, timed apart.

fastgrpo draws the responses and writes them down; TRL's generate() goes through all its own work and then takes the written tokens.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import dataclass, field

import torch
from race_problem import Race, flat_weights
from torch import Tensor


@dataclass
class Trace:
    """Of each step: seconds of generation and of learning, loss, gradient norm before clipping; all responses by step; weights' change."""

    generation: list[float] = field(default_factory=list)
    learning: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    responses: list[list[list[int]]] = field(default_factory=list)
    change: Tensor | None = None


def fastgrpo(race: Race, written: list | None) -> Trace:
    from fastgrpo.advantages import group_advantages
    from fastgrpo.config import load_config
    from fastgrpo.learner.native import NativeLearner
    from fastgrpo.model import training_cost
    from fastgrpo.ranks import Ranks
    from fastgrpo.rollout.native import NativeEngine
    from fastgrpo.types import Grade, Prompt, Sampling, ScoredGroup
    from fastgrpo.updates import cut_updates, own_share

    settings = {"prompts_per_step": race.prompts, "samples_per_prompt": race.samples, "updates_per_rollout": 1, "lr": race.lr}
    settings |= {"max_new_tokens": race.budget, "max_prompt_tokens": race.prompt_tokens[1], "tokens_per_pack": race.tokens_per_pack}
    config = load_config("tiny", [f"{name}={value}" for name, value in settings.items()]).config
    model, trace = race.model(), Trace()
    learner = NativeLearner(model, config.loss, config.temperature, lambda update: race.lr, 1.0)
    engine, sampling = NativeEngine(model, race.tokenizer()), Sampling(config.temperature, race.budget)
    prompts = [Prompt(str(index), tuple(ids), "1") for index, ids in enumerate(race.prompt_ids())]
    before = flat_weights(model)
    for step in range(race.steps):
        chosen = range(step * race.prompts, (step + 1) * race.prompts)
        seeds = [[index * race.samples + j for j in range(race.samples)] for index in chosen]
        started = time.perf_counter()
        rollouts = engine.generate([prompts[index] for index in chosen], race.samples, sampling, seeds)
        drawn = time.perf_counter()
        groups = []
        for index, group in zip(chosen, rollouts, strict=True):
            rewards = tuple(race.reward(index, list(rollout.token_ids)) for rollout in group)
            grades = tuple(Grade(reward, True, "ok") for reward in rewards)
            groups.append(ScoredGroup(prompts[index], group, grades, rewards, group_advantages(rewards, config.loss.type)))
        (update,) = cut_updates(groups, step, config)
        packs, _ = own_share(update, config, training_cost(model), Ranks(), config.tokens_per_pack)
        reports, norm = learner.update(packs)
        engine.update_weights(learner.named_weights())
        trace.learning.append(time.perf_counter() - drawn)
        trace.generation.append(drawn - started)
        trace.losses.append(sum(report["loss"] for report in reports))
        trace.norms.append(norm)
        trace.responses.append([list(rollout.token_ids) for group in rollouts for rollout in group])
    trace.change = flat_weights(model) - before
    return trace


def trl(race: Race, written: list, fused: bool = False) -> Trace:
    from transformers import TrainerCallback

    trace = Trace()
    trainer = grpo_trainer(race, written)
    if fused:
        from fastgrpo.integrations.trl import use_fused_loss

        use_fused_loss(trainer)
    generate, training_step = trainer._generate_and_score_completions, trainer.training_step
    losses = []

    def timed_generate(inputs):
        started = time.perf_counter()
        batch = generate(inputs)
        trace.generation.append(time.perf_counter() - started)
        kept = batch["completion_mask"].sum(1).tolist()
        trace.responses.append([ids[:count] for ids, count in zip(batch["completion_ids"].tolist(), kept, strict=True)])
        return batch

    def watched_step(*arguments):
        losses.append(training_step(*arguments).item())
        return torch.tensor(losses[-1])

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **others):
            losses.clear()
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **others):
            trace.learning.append(time.perf_counter() - self.started - trace.generation[-1])
            trace.losses.append(sum(losses))

    trainer._generate_and_score_completions, trainer.training_step = timed_generate, watched_step
    trainer.add_callback(Clock())
    before = flat_weights(trainer.model)
    trainer.train()
    trace.norms = [line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line]
    trace.change = flat_weights(trainer.model) - before
    return trace


def fused_trl(race: Race, written: list) -> Trace:
    return trl(race, written, fused=True)


def grpo_trainer(race: Race, written: list):
    """A GRPOTrainer that makes one update of each step's responses, which its generate() takes from `written`."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model, texts = race.model(), [" ".join(f"w{token}" for token in ids) for ids in race.prompt_ids()]
    model.set_attn_implementation("sdpa")
    take_written_tokens(model, written)
    micro_batches = race.responses // race.rows

    def reward(completion_ids, index, **columns) -> list[float]:
        return [race.reward(which, ids) for which, ids in zip(index, completion_ids, strict=True)]

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")
        settings = GRPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=race.rows,
            gradient_accumulation_steps=micro_batches,
            steps_per_generation=micro_batches,
            num_generations=race.samples,
            max_completion_length=race.budget,
            max_steps=race.steps,
            learning_rate=race.lr,
            lr_scheduler_type="constant",
            adam_beta1=0.9,
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            loss_type="dr_grpo",
            scale_rewards="none",
            beta=0.0,
            temperature=1.0,
            shuffle_dataset=False,
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            bf16=False,
            use_cpu=True,
            disable_tqdm=True,
        )
        return GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": texts, "index": list(range(len(texts)))}),
            processing_class=race.tokenizer(),
        )


def take_written_tokens(model, written: list[list[list[int]]]) -> None:
    """Replaces model.generate by itself with one more step before each draw: all probability on the written token of each row."""
    from transformers import LogitsProcessor

    generate, steps = model.generate, iter(written)

    class Written(LogitsProcessor):
        def __init__(self):
            self.responses, self.place = next(steps), 0

        def __call__(self, input_ids, scores):
            tokens = [ids[self.place] if self.place < len(ids) else 0 for ids in self.responses]
            self.place += 1
            return torch.full_like(scores, -torch.inf).scatter_(1, torch.tensor(tokens)[:, None], 0.0)

    model.generate = lambda *arguments, **inputs: generate(*arguments, logits_processor=[Written()], **inputs)


CONTESTANTS = {"fastgrpo": fastgrpo, "TRL": trl, "TRL with our loss": fused_trl}
