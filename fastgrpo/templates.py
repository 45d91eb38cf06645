"""Prompt templates of the paper, byte for byte: the whole prompt is one string, and no special token is added to it.

What surprises: `no` is the bare question. It suits base models that were pretrained on question-answer text (arXiv:2503.20783, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnswerForm = Literal["boxed", "answer_tag"]


@dataclass(frozen=True, slots=True)
class Template:
    """Text around a question, the strings that end a response (kept in it), and where the answer is looked for."""

    text: str
    stop: tuple[str, ...]
    answer_form: AnswerForm

    def render(self, question: str) -> str:
        before, after = self.text.split("{question}")
        return before + question + after


TEMPLATES = {
    "qwen_math": Template(
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
        stop=(),
        answer_form="boxed",
    ),
    "r1": Template(
        "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. "
        "The Assistant first thinks about the reasoning process in the mind and then provides the User with the answer. "
        "The reasoning process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>.\n"
        "User: {question}\nAssistant: <think>",
        stop=("</answer>",),
        answer_form="answer_tag",
    ),
    "no": Template("{question}", stop=(), answer_form="boxed"),
}
