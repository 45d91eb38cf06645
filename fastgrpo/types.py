"""The data that flows: Prompt -> Rollout -> ScoredGroup -> TrainingSequence -> PackedBatch -> LossOutput.

All frozen and checked when made, so that a function that receives one need not check again.
Torch appears in annotations only: importing this module is cheap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Answer = str | int | float | list
"""A gold answer: text, a number, or a list of which any entry may match."""

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its gold answer, before any template or tokenizer."""

    id: str
    problem: str
    answer: Answer
    columns: Mapping[str, object] = field(default_factory=dict)  # the whole row, for rewards of the user's own


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem rendered by a template and tokenised once: these ids are what the model sees.

    A prompt for a server that tokenises by itself has no ids, only its rendered `text`.
    """

    id: str
    token_ids: tuple[int, ...]
    answer: Answer
    problem: str = ""
    columns: Mapping[str, object] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self):
        if not self.token_ids and not self.text:
            raise ValueError(f"Prompt {self.id}: token_ids and text are both empty")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How responses are drawn. `temperature` 0 means greedy; `stop` strings stay in the response."""

    temperature: float
    max_new_tokens: int
    stop: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.temperature >= 0 or self.max_new_tokens < 1:
            raise ValueError(f"Sampling: temperature {self.temperature} must be >= 0, max_new_tokens {self.max_new_tokens} >= 1")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled response. `token_ids` holds the response only, with its end-of-sequence token if one was sampled.

    `logprobs` are the sampler's, in nats, at the sampling temperature (greedy: at temperature 1).
    `text` serves graders and logs; it is never tokenised again.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    text: str

    def __post_init__(self):
        if not self.token_ids or len(self.token_ids) != len(self.logprobs):
            raise ValueError(
                f"Rollout: {len(self.token_ids)} token_ids and {len(self.logprobs)} logprobs; at least one of each, equally many"
            )
        if self.finish_reason not in ("stop", "length"):
            raise ValueError(f"Rollout: finish_reason {self.finish_reason!r} is neither 'stop' nor 'length'")

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.token_ids)

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Completion:
    """A response of which only the text is known, as a server or a file of earlier responses gives it; `length` in tokens.

    `prompt_tokens` are those that a server counted in the prompt; 0 where it did not say.
    """

    text: str
    length: int
    finish_reason: FinishReason
    prompt_tokens: int = 0

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


Response = Completion | Rollout
"""What a grader and an evaluation need: text, length, finish_reason."""

SampleKey = tuple[str, int]
"""A prompt's id and the number of the sample."""

GradeStatus = Literal["ok", "timeout", "crash", "unparsable", "unscorable"]
"""How grading went. Only "unscorable", where a reward function failed or declined, leaves a response without a reward."""

GRADE_STATUSES: tuple[GradeStatus, ...] = get_args(GradeStatus)


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict on one response: its reward (None when unscorable), whether the answer had the right form, how grading went.

    `parts` are the rewards that the weighted sum was made of, by name, where there were several or one of the user's own.
    """

    reward: float | None
    formatted: bool
    status: GradeStatus
    parts: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self):
        if (self.reward is None) != (self.status == "unscorable"):
            raise ValueError(f"Grade: reward {self.reward} with status {self.status!r}; None goes with 'unscorable' alone")


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A prompt with its G responses, their rewards (None where unscorable) and advantages, in one order."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    grades: tuple[Grade, ...]
    rewards: tuple[float | None, ...]
    advantages: tuple[float, ...]

    def __post_init__(self):
        sizes = {len(self.rollouts), len(self.grades), len(self.rewards), len(self.advantages)}
        if len(sizes) != 1 or min(sizes) < 2:
            raise ValueError(
                f"ScoredGroup {self.prompt.id}: rollouts, grades, rewards and advantages need one length of at least 2, got {sizes}"
            )

    @property
    def has_signal(self) -> bool:
        """Whether any response of the group pulls the policy: two rewards differ."""
        return any(self.advantages)


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """What the learner needs of one response. `scale` is the complete factor of each of its tokens in the loss."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    advantage: float
    scale: float

    def __len__(self) -> int:
        """Tokens that the model reads: prompt and response without the last, which is only a target."""
        return len(self.prompt_ids) + len(self.response_ids) - 1


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """S sequences laid end to end in T tokens, without padding; targets are already shifted by one.

    input_ids, targets, position_ids (T,) int64, positions restart at 0 in each sequence; loss_mask (T,) bool, true where the
    target is a response token; cu_seqlens (S+1,) int32, `max_seqlen` their largest step. advantages, scale, sampler_logprobs
    (T,) float, 0 outside the mask; scale is 1/(B L), 1/(B |o_i|) or 1/tokens: nobody divides again.
    old_logprobs, ref_logprobs (T,) or None; without old_logprobs the ratio is 1 by construction.
    """

    input_ids: Tensor
    targets: Tensor
    position_ids: Tensor
    loss_mask: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    advantages: Tensor
    scale: Tensor
    sampler_logprobs: Tensor
    old_logprobs: Tensor | None = None
    ref_logprobs: Tensor | None = None

    def __post_init__(self):
        tokens = self.input_ids.shape[0]
        for name in ("targets", "position_ids", "loss_mask", "advantages", "scale", "sampler_logprobs", "old_logprobs", "ref_logprobs"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape != (tokens,):
                raise ValueError(f"PackedBatch: {name} has shape {tuple(tensor.shape)}, expected ({tokens},)")

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by field."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "max_seqlen"}
        return {name: value for name, value in values.items() if value is not None}

    def with_logprobs(self, **logprobs: Tensor) -> PackedBatch:
        """The same pack with `old_logprobs` and / or `ref_logprobs` (T,) filled in."""
        return dataclasses.replace(self, **logprobs)


@dataclass(frozen=True, slots=True)
class LossOutput:
    """A scalar loss that carries the gradient, and statistics that add up over packs and ranks (sums, counts, `*_max`)."""

    loss: Tensor
    stats: dict[str, Tensor] = field(default_factory=dict)
