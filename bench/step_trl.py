"""TRL in the comparison of whole steps: its GRPOTrainer computes log-probs and loss on its own padded batches.

Made for trl 1.16; a missing trl raises ImportError, which becomes a named skip. Nothing is generated or graded.
"""

from __future__ import annotations

import tempfile
import warnings

import torch
from step_problem import Row, StepProblem
from torch import Tensor

from fastgrpo.learner.native import NativeLearner


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
