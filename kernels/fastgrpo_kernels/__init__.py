"""The clipped policy-gradient loss from hidden states, without ever holding the (tokens, vocabulary) logits.

    from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs

    old_logprobs, _ = linear_logprobs(hidden, head.weight, targets, temperature=1.0)      # under torch.no_grad(), before the first step
    out = fused_linear_policy_loss(hidden, head.weight, targets, advantages=advantages, old_logprobs=old_logprobs,
                                   denominator=responses * max_new_tokens, temperature=1.0, clip_low=0.2, clip_high=0.2)
    out.loss.backward()                                                                    # once: the gradients exist already

`policy_loss` is the same objective for a trainer that already has log-probs; `reference` is every op in plain PyTorch, the definition
that the others are tested against. The default objective is that of arXiv:2503.20783: Eq. 2 clipped, with Dr. GRPO's constant divisor.
"""

from fastgrpo_kernels import reference
from fastgrpo_kernels.linear_logprobs import linear_logprobs
from fastgrpo_kernels.linear_policy_loss import fused_linear_policy_loss
from fastgrpo_kernels.policy_loss import policy_loss
from fastgrpo_kernels.stats import PolicyLossOutput

__all__ = ["PolicyLossOutput", "fused_linear_policy_loss", "linear_logprobs", "policy_loss", "reference"]
