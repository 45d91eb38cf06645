"""Who takes part in a learning step: packs or padded rows, the fused head or full logits, and TRL's own loss. One learner for all.

Each has `old_logprobs()`, which computes and keeps them, and `backward()`, which leaves the gradient of the whole step in the learner and
returns the loss. The weights, the masters and the optimizer are the same NativeLearner's, so that what differs is the way to the
gradient. A package that is missing raises ImportError, which becomes a named skip.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from step_problem import Row, StepProblem
from torch import Tensor
from torch.nn import functional as F

from fastgrpo.learner.native import NativeLearner
from fastgrpo.model import head_weight, kept_hidden_states
from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs


class Packed:
    """fastgrpo as it trains: sequences end to end, gradients made in the forward pass of the head."""

    def __init__(self, problem: StepProblem, learner: NativeLearner):
        self.learner, self.packs = learner, problem.packs(learner.model)
        self.noise = problem.noise(self.packs)

    def old_logprobs(self) -> None:
        found = zip(self.packs, self.learner.logprobs(self.packs), self.noise, strict=True)
        self.packs = [batch.with_logprobs(old_logprobs=old + noise) for batch, old, noise in found]

    def backward(self) -> float:
        return sum(self.learner.backward(batch)["loss"] for batch in self.packs)


class PackedEager(Packed):
    """The same packs through full logits, as plain trainers write the loss."""

    def backward(self) -> float:
        total, model, settings = 0.0, self.learner.model, self.learner.loss
        for batch in self.packs:
            rows = batch.loss_mask
            targets, advantages, scale, old = (
                values[rows].to(model.device) for values in (batch.targets, batch.advantages, batch.scale, batch.old_logprobs)
            )
            logits = F.linear(kept_hidden_states(model, batch), head_weight(model)).float()
            ratio = (logits.log_softmax(-1).gather(1, targets[:, None])[:, 0] - old).exp()
            clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
            loss = -(scale * torch.minimum(ratio * advantages, clipped * advantages)).sum()
            del logits, ratio, clipped
            loss.backward()
            self.learner.take_gradients()
            total += loss.item()
        return total


class Padded:
    """One response a row, padded to the longest of its micro-batch, plain attention with a mask; the fused head on response rows."""

    def __init__(self, problem: StepProblem, learner: NativeLearner):
        learner.model.set_attn_implementation("sdpa")
        self.learner, self.settings = learner, {"clip_low": learner.loss.clip_low, "clip_high": learner.loss.clip_high}
        self.denominator = len(problem.rows) * problem.config.max_new_tokens
        self.batches = [right_padded(rows, learner.model.device) for rows in problem.padded()]

    def _hidden(self, batch: dict[str, Tensor]) -> Tensor:
        model = self.learner.model
        states = model.base_model(input_ids=batch["ids"], attention_mask=batch["attend"], use_cache=False).last_hidden_state
        return states[batch["rows"]]

    @torch.no_grad()
    def old_logprobs(self) -> None:
        for batch in self.batches:
            logprobs, _ = linear_logprobs(self._hidden(batch), head_weight(self.learner.model), batch["targets"], 1.0)
            batch["old"] = logprobs + batch["noise"]

    def backward(self) -> float:
        total = 0.0
        for batch in self.batches:
            loss = fused_linear_policy_loss(
                self._hidden(batch),
                head_weight(self.learner.model),
                batch["targets"],
                advantages=batch["advantages"],
                old_logprobs=batch["old"],
                denominator=self.denominator,
                temperature=1.0,
                **self.settings,
            ).loss
            loss.backward()
            self.learner.take_gradients()
            total += loss.item()
        return total


def right_padded(rows: list[Row], device: torch.device) -> dict[str, Tensor]:
    """ids, attend (R, L); rows (R, L) bool, true where the next token is of the response; targets, advantages, noise (M,) of those."""
    longest = max(len(row.prompt) + len(row.response) - 1 for row in rows)
    ids, attend, predicts = torch.zeros(len(rows), longest, dtype=torch.int64), *torch.zeros(2, len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens = (*row.prompt, *row.response)[:-1]
        ids[index, : len(tokens)] = torch.tensor(tokens)
        attend[index, : len(tokens)] = True
        predicts[index, len(row.prompt) - 1 : len(tokens)] = True
    batch = {
        "ids": ids,
        "attend": attend,
        "rows": predicts,
        "targets": torch.tensor([token for row in rows for token in row.response]),
        "advantages": torch.cat([torch.full((len(row.response),), row.advantage) for row in rows]),
        "noise": torch.cat([row.noise for row in rows]),
    }
    return {name: values.to(device) for name, values in batch.items()}


class Trl:
    """TRL's GRPOTrainer computes log-probs and loss itself, over rows padded as it pads them: prompts left, responses right, to the
    longest of the whole step. Its optimizer is left out: the learner's takes its gradients.
    """

    liger = False

    def __init__(self, problem: StepProblem, learner: NativeLearner):
        self.learner, model = learner, learner.model
        model.set_attn_implementation("sdpa")
        self.trainer = grpo_trainer(problem, learner, self.liger)
        model.train()  # its losses are divided by the number of micro-batches in this mode; the model has no dropout
        batches = problem.padded()
        self.trainer.current_gradient_accumulation_steps = len(batches)
        widths = max(len(row.prompt) for row in problem.rows), max(len(row.response) for row in problem.rows)
        self.batches = [{name: value.to(model.device) for name, value in trl_rows(rows, *widths).items()} for rows in batches]

    @torch.no_grad()
    def old_logprobs(self) -> None:
        for batch in self.batches:
            ids, attend = (torch.cat([batch[f"prompt_{name}"], batch[f"completion_{name}"]], 1) for name in ("ids", "mask"))
            kept = batch["completion_ids"].shape[1]
            old = self.trainer._get_per_token_logps_and_entropies(self.learner.model, ids, attend, kept)[0]
            batch["old_per_token_logps"] = old + batch["noise"]

    def backward(self) -> float:
        total = 0.0
        for batch in self.batches:
            loss = self.trainer.compute_loss(self.learner.model, batch)
            loss.backward()
            self.learner.take_gradients()
            total += loss.item()
        return total


class TrlLiger(Trl):
    """The same with use_liger_kernel, which replaces norms, MLP and rotary embedding."""

    liger = True


def grpo_trainer(problem: StepProblem, learner: NativeLearner, liger: bool):
    """A real GRPOTrainer around the learner's model, which will generate and grade nothing."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    on_gpu = learner.model.device.type == "cuda"
    if liger and not on_gpu:
        raise ImportError("Liger's layers run on a GPU only")
    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="<pad>"))
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")
        settings = GRPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=problem.size.rows,
            gradient_accumulation_steps=len(problem.rows) // problem.size.rows,
            num_generations=problem.size.samples,
            max_completion_length=problem.config.max_new_tokens,
            loss_type="dr_grpo",
            beta=0.0,
            epsilon=learner.loss.clip_low,
            epsilon_high=learner.loss.clip_high,
            temperature=1.0,
            gradient_checkpointing=False,
            use_liger_kernel=liger,
            bf16=False,  # the weights are bfloat16 themselves
            use_cpu=not on_gpu,
            report_to=[],
        )
        trainer = GRPOTrainer(
            model=learner.model,
            reward_funcs=lambda completions, **columns: [0.0] * len(completions),
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": ["a"] * len(problem.rows)}),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<pad>", pad_token="<pad>"),
        )
    if liger:  # as its train() begins
        from transformers.integrations.liger import apply_liger_kernel

        apply_liger_kernel(learner.model, settings.liger_kernel_config)
    return trainer


def trl_rows(rows: list[Row], prompt_width: int, response_width: int) -> dict[str, Tensor]:
    """The inputs of TRL's loss: (R, P) of the prompts, (R, C) of the responses, advantages (R,), and the noise (R, C)."""

    def table(sequences, width: int, dtype: torch.dtype, left: bool = False) -> Tensor:
        values = torch.zeros(len(rows), width, dtype=dtype)
        for index, sequence in enumerate(sequences):
            where = slice(width - len(sequence), width) if left else slice(len(sequence))
            values[index, where] = torch.as_tensor(sequence, dtype=dtype)
        return values

    def ones(sequences) -> list[list[int]]:
        return [[1] * len(sequence) for sequence in sequences]

    prompts, responses = [row.prompt for row in rows], [row.response for row in rows]
    return {
        "prompt_ids": table(prompts, prompt_width, torch.int64, left=True),
        "prompt_mask": table(ones(prompts), prompt_width, torch.int64, left=True),
        "completion_ids": table(responses, response_width, torch.int64),
        "completion_mask": table(ones(responses), response_width, torch.int64),
        "advantages": torch.tensor([row.advantage for row in rows]),
        "num_items_in_batch": torch.tensor(float(sum(map(len, responses)))),
        "noise": table([row.noise for row in rows], response_width, torch.float32),
    }


@dataclass(frozen=True)
class Entry:
    """A line of the table: the way to the gradient, and settings of the learner."""

    way: Callable[[StepProblem, NativeLearner], Packed | Padded | Trl] = Packed
    attention: str = "auto"
    recompute: bool = False
    compiled: bool = False


ENTRIES = {
    "fastgrpo": Entry(),
    "fastgrpo, recompute": Entry(recompute=True),
    "fastgrpo, padded": Entry(Padded),
    "fastgrpo, full logits": Entry(PackedEager),
    "fastgrpo, torch.compile": Entry(compiled=True),
    "TRL": Entry(Trl),
    "TRL, recompute": Entry(Trl, recompute=True),
    "TRL, Liger": Entry(TrlLiger),
    "fastgrpo, attention sdpa": Entry(attention="sdpa"),
    "fastgrpo, attention varlen": Entry(attention="varlen"),
    "fastgrpo, attention flash2": Entry(attention="flash2"),
    "fastgrpo, attention flash4": Entry(attention="flash4"),
}
