"""Dr. GRPO in plain PyTorch with the fused loss: a small recurrent policy learns to end on its prompt's first token.

    python docs/examples/plain_pytorch.py                 # half a minute on a CPU

The policy is a body that gives hidden states and a head that is a plain matrix; nothing else is asked of it. The loss never sees logits.
"""

import torch
from torch import nn

from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs

VOCABULARY, WIDTH, PROMPT, RESPONSE = 16, 64, 2, 4
PROMPTS, SAMPLES, UPDATES, STEPS = 16, 8, 2, 100


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.cell = nn.Embedding(VOCABULARY, WIDTH), nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, ids):
        return self.cell(self.embed(ids))[0]


@torch.no_grad()
def sample(body, head, prompts):
    ids = prompts
    for _ in range(RESPONSE):
        probabilities = head(body(ids)[:, -1]).softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1)], 1)
    return ids


def main(steps: int = STEPS) -> list[float]:
    """The mean reward of each step."""
    torch.manual_seed(0)
    body, head = Body(), nn.Linear(WIDTH, VOCABULARY, bias=False)
    optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=5e-3)
    history = []
    for step in range(steps):
        prompts = torch.randint(VOCABULARY, (PROMPTS, PROMPT)).repeat_interleave(SAMPLES, 0)
        ids = sample(body, head, prompts)
        rewards = (ids[:, PROMPT:] == ids[:, :1]).float().mean(1)  # the share of tokens that are right
        grouped = rewards.view(PROMPTS, SAMPLES)
        advantages = (grouped - grouped.mean(1, keepdim=True)).view(-1, 1).expand(-1, RESPONSE).flatten()

        def hidden(ids=ids):  # the states that predict the response's tokens, one row a token
            return body(ids[:, :-1])[:, PROMPT - 1 :].flatten(0, 1)

        targets = ids[:, PROMPT:].flatten()
        with torch.no_grad():  # before the first update: the second is off the policy, and clipped
            old, _ = linear_logprobs(hidden(), head.weight, targets, temperature=1.0)
        for _ in range(UPDATES):
            out = fused_linear_policy_loss(
                hidden(),
                head.weight,
                targets,
                advantages=advantages,
                old_logprobs=old,
                denominator=len(ids) * RESPONSE,  # Dr. GRPO's constant: responses times the longest response allowed
                temperature=1.0,
                clip_low=0.2,
                clip_high=0.2,
            )
            out.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        history.append(rewards.mean().item())
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step}: mean reward {history[-1]:.3f}")
    return history


if __name__ == "__main__":
    main()
