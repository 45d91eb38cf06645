"""What two ranks run under torchrun: the fused loss inside a DistributedDataParallel forward; the second rank has no row to compute."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastgrpo_kernels import fused_linear_policy_loss, reference

TOKENS, WIDTH, VOCABULARY = 24, 16, 50


class Policy(nn.Module):
    """A body and a head; the loss is computed in forward, so that the wrapper's gradient hooks see every parameter."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, inputs: Tensor, targets: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        settings = {"denominator": 10.0, "temperature": 1.0, "clip_low": 0.2, "clip_high": 0.2}
        hidden = self.body(inputs)
        return fused_linear_policy_loss(hidden, self.head.weight, targets, advantages=advantages, loss_mask=mask, **settings).loss


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    policy = Policy().double()
    inputs, advantages = torch.randn(TOKENS, WIDTH, dtype=torch.float64), torch.randn(TOKENS, dtype=torch.float64)
    targets = torch.randint(VOCABULARY, (TOKENS,))
    mask = torch.full((TOKENS,), dist.get_rank() == 0)
    wrapped = DistributedDataParallel(policy)
    wrapped(inputs, targets, advantages, mask).backward()
    gradients = [parameter.grad.clone() for parameter in policy.parameters()]
    policy.zero_grad()
    # The wrapper averages over ranks.
    logprobs = reference.token_logprobs(policy.head(policy.body(inputs)), targets, 1.0)
    (-(advantages * (logprobs - logprobs.detach()).exp()).sum() / 10.0 / dist.get_world_size()).backward()
    for got, parameter in zip(gradients, policy.parameters(), strict=True):
        assert (got - parameter.grad).norm() <= 1e-12 * parameter.grad.norm(), (got, parameter.grad)
    dist.barrier()
    os._exit(0)  # at once: gloo's threads abort, now and then, a process that takes its objects down around them


if __name__ == "__main__":
    main()
