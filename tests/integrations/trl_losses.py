"""TRL's loss on one made-up batch, far off the policy, so that clips, caps and masks all act; no generation."""

import torch

SEQUENCES, PROMPT, COMPLETION, VOCABULARY = 6, 5, 12, 24
EMPTY = 5  # the sequence whose completion is masked as a whole


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int, size: float = 1.0) -> torch.Tensor:
        return size * torch.randn(*shape, generator=generator)

    lengths = torch.tensor([12, 3, 7, 1, 10, 0])
    prompts = torch.tensor([5, 2, 3, 1, 4, 5])
    return {
        "prompt_ids": torch.randint(2, VOCABULARY, (SEQUENCES, PROMPT), generator=generator),
        "prompt_mask": (torch.arange(PROMPT) >= PROMPT - prompts[:, None]).long(),
        "completion_ids": torch.randint(0, VOCABULARY, (SEQUENCES, COMPLETION), generator=generator),
        "completion_mask": (torch.arange(COMPLETION) < lengths[:, None]).long(),
        "advantages": torch.tensor([0.9, -1.1, 0.0, 1.4, -0.3, 0.7]),
        "num_items_in_batch": torch.tensor(140),
        "tool_mask": (torch.arange(COMPLETION) % 4 != 2).long().expand(SEQUENCES, COMPLETION).contiguous(),
        "importance_sampling_ratio": noise(SEQUENCES, COMPLETION).abs().clamp(max=1.5).floor_divide(0.3),
        "per_sequence_ratio": noise(SEQUENCES, 1).abs(),
        "old_noise": noise(SEQUENCES, COMPLETION, size=0.8),
        "ref_noise": noise(SEQUENCES, COMPLETION, size=0.5),
    }


def inputs_of(trainer, case: dict) -> dict[str, torch.Tensor]:
    """The batch as TRL's loss takes it: old and reference log-probs are the model's own, moved by noise."""
    values = batch()
    per_sequence, noises = values.pop("per_sequence_ratio"), {name: values.pop(f"{name}_noise") for name in ("old", "ref")}
    if not case.get("tools"):
        del values["tool_mask"]
    if case.get("vllm"):
        trainer.use_vllm = True
        if case["vllm"] == "sequence":
            values["importance_sampling_ratio"] = per_sequence
    if case.get("per_token"):
        values["advantages"] = values["advantages"][:, None] * torch.linspace(-0.5, 1, COMPLETION)
    ids, attend = (torch.cat([values[f"prompt_{name}"], values[f"completion_{name}"]], 1) for name in ("ids", "mask"))
    with torch.no_grad():
        now = trainer._get_per_token_logps_and_entropies(trainer.model, ids, attend, COMPLETION)[0]
    if not case.get("on_policy"):
        values["old_per_token_logps"] = now + noises["old"]
    if trainer.beta:
        values["ref_per_token_logps"] = now + noises["ref"]
    return values


def outcome(trainer, inputs: dict, training: bool = True) -> tuple[float, torch.Tensor, dict[str, list[float]]]:
    """Loss, gradient of all weights, metrics, in the third of four micro-batches."""
    trainer.model.train(training)
    trainer.current_gradient_accumulation_steps = 4
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    gradient = torch.cat([parameter.grad.double().flatten() for parameter in trainer.model.parameters() if parameter.grad is not None])
    return loss.item(), gradient, {name: list(values) for name, values in trainer._metrics["train" if training else "eval"].items()}
