"""Hugging Face's Trainer with the fused loss: its model is a module whose forward is the loss, so nothing of Trainer is overridden.

    python docs/examples/hf_trainer.py                    # half a minute on a CPU; needs transformers, datasets, accelerate

DDP, FSDP and DeepSpeed wrap that module, so the head's weight is read where they have it whole. Rounds of sampling and grading go around
Trainer: each makes a data set of graded responses, on which Trainer takes its steps.
"""

import tempfile

import torch
from datasets import Dataset
from torch import nn
from transformers import PrinterCallback, Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments

from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs

VOCABULARY, PROMPT, RESPONSE = 16, 2, 4
PROMPTS, SAMPLES, ROUNDS = 16, 8, 14


class PolicyLossModel(nn.Module):
    """A causal LM that returns the loss of a batch of responses. Trainer takes the mean over micro-batches of equal size."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def states(self, input_ids):
        """(R, K, H): the states that predict the K response tokens."""
        return self.model.model(input_ids=input_ids[:, :-1], use_cache=False).last_hidden_state[:, -RESPONSE:]

    def forward(self, input_ids, advantages, old_logprobs):
        out = fused_linear_policy_loss(
            self.states(input_ids).flatten(0, 1),
            self.model.lm_head.weight,
            input_ids[:, -RESPONSE:].flatten(),
            advantages=advantages[:, None].expand(-1, RESPONSE).flatten(),
            old_logprobs=old_logprobs.flatten(),
            denominator=old_logprobs.numel(),  # responses times the longest response allowed, of this micro-batch
            temperature=1.0,
            clip_low=0.2,
            clip_high=0.2,
        )
        return {"loss": out.loss}


@torch.no_grad()
def graded_responses(policy: PolicyLossModel) -> tuple[Dataset, float]:
    """Responses with advantages R - mean(R) and the log-probs they were drawn with; and the mean reward."""
    prompts = torch.randint(2, VOCABULARY, (PROMPTS, PROMPT)).repeat_interleave(SAMPLES, 0)
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": RESPONSE, "min_new_tokens": RESPONSE, "pad_token_id": 0}
    policy.eval()
    ids = policy.model.generate(prompts, attention_mask=torch.ones_like(prompts), **settings)
    rewards = (ids[:, PROMPT:] == ids[:, :1]).float().mean(1)
    grouped = rewards.view(PROMPTS, SAMPLES)
    targets = ids[:, PROMPT:].flatten()
    old, _ = linear_logprobs(policy.states(ids).flatten(0, 1), policy.model.lm_head.weight, targets, temperature=1.0)
    columns = {
        "input_ids": ids.tolist(),
        "advantages": (grouped - grouped.mean(1, keepdim=True)).flatten().tolist(),
        "old_logprobs": old.view(len(ids), RESPONSE).tolist(),
    }
    return Dataset.from_dict(columns).with_format("torch"), rewards.mean().item()


def main(rounds: int = ROUNDS) -> list[float]:
    """The mean reward before each round."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, tie_word_embeddings=False, bos_token_id=None, eos_token_id=1, **shape))
    policy, history = PolicyLossModel(model), []
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=32,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            learning_rate=5e-3,
            lr_scheduler_type="constant",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
        )
        optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.learning_rate)
        for turn in range(rounds):
            responses, reward = graded_responses(policy)
            history.append(reward)
            print(f"round {turn}: mean reward {reward:.3f}")
            trainer = Trainer(policy, settings, train_dataset=responses, optimizers=(optimizer, None))
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    return history


if __name__ == "__main__":
    main()
