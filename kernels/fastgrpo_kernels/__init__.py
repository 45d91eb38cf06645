"""The clipped policy-gradient loss from hidden states, without ever holding the (tokens, vocabulary) logits.

    from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs

    old_logprobs, _ = linear_logprobs(hidden, head.weight, targets, temperature=1.0)      # under torch.no_grad(), before the first step
    out = fused_linear_policy_loss(hidden, head.weight, targets, advantages=advantages, old_logprobs=old_logprobs,
                                   denominator=responses * max_new_tokens, temperature=1.0, clip_low=0.2, clip_high=0.2)
    out.loss.backward()                                                                    # once: the gradients exist already

`policy_loss_from_logits` is the same loss for a trainer that holds logits, `policy_loss` for one that has log-probs; `gspo_gradients` turns
GSPO into kind "given", `segment_sum` adds up over the sequences of a pack; `reference` is every op in plain PyTorch, the definition that
the others are tested against. The default objective is that of arXiv:2503.20783: Eq. 2 clipped, with Dr. GRPO's constant divisor.
"""

from fastgrpo_kernels import reference
from fastgrpo_kernels.linear_logprobs import linear_logprobs
from fastgrpo_kernels.linear_policy_loss import fused_linear_policy_loss
from fastgrpo_kernels.logits_policy_loss import policy_loss_from_logits
from fastgrpo_kernels.policy_loss import policy_loss
from fastgrpo_kernels.segment import gspo_gradients, segment_sum
from fastgrpo_kernels.stats import PolicyLossOutput

__all__ = [
    "PolicyLossOutput",
    "fused_linear_policy_loss",
    "gspo_gradients",
    "linear_logprobs",
    "policy_loss",
    "policy_loss_from_logits",
    "reference",
    "segment_sum",
]
