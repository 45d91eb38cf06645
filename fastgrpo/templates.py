"""Prompt templates: the whole prompt is one string, and no special token is added to it. All but `4-shot` are the paper's, byte for byte.

What surprises: `no` is the bare question. It suits base models that were pretrained on question-answer text (arXiv:2503.20783, section 2).
`open-reasoner-zero` and `prime-zero` are for evaluating the models of those names as the paper did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnswerForm = Literal["boxed", "answer_tag", "orz_tag"]


@dataclass(frozen=True, slots=True)
class Template:
    """Text around a question, the strings that end a response (kept in it), and where the answer is looked for."""

    text: str
    stop: tuple[str, ...]
    answer_form: AnswerForm

    def render(self, question: str) -> str:
        before, after = self.text.split("{question}")
        return before + question + after


# The paper's four examples are not published; these are our own, so its 4-shot numbers are near ours, not the same experiment.
_SHOTS = (
    (
        "A train travels 180 kilometers in 2.5 hours. What is its average speed in kilometers per hour?",
        "The average speed is the distance divided by the time: 180 / 2.5 = 72. The answer is \\boxed{72}.",
    ),
    (
        "Solve for $x$: $3x - 7 = 2x + 5$.",
        "Subtracting $2x$ from both sides gives $x - 7 = 5$, so $x = 12$. The answer is \\boxed{12}.",
    ),
    (
        "Two fair dice are rolled. What is the probability that the sum is 9? Give a common fraction.",
        "The sums of 9 are $(3,6), (4,5), (5,4), (6,3)$: 4 of 36 outcomes, so $\\frac{4}{36} = \\frac{1}{9}$. "
        "The answer is \\boxed{\\frac{1}{9}}.",
    ),
    (
        "What is the area of a circle whose circumference is $10\\pi$?",
        "From $2\\pi r = 10\\pi$ the radius is $r = 5$, so the area is $\\pi r^2 = 25\\pi$. The answer is \\boxed{25\\pi}.",
    ),
)
_FOUR_SHOT = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in _SHOTS) + "Question: {question}\nAnswer:"

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
    "4-shot": Template(_FOUR_SHOT, stop=("\n\nQuestion:",), answer_form="boxed"),
    "open-reasoner-zero": Template(
        "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. "
        "The Assistant first thinks about the reasoning process in the mind and then provides the User with the answer. "
        "The reasoning process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        "User: You must put your answer inside <answer> </answer> tags, i.e., <answer> answer here </answer>. "
        "And your final answer will be extracted automatically by the \\boxed{} tag.\n"
        "This is the problem:\n{question}\nAssistant: <think>",
        stop=(),
        answer_form="orz_tag",
    ),
    "prime-zero": Template(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
        "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        "User: {question}\n\nPresent the answer in LaTex format: \\boxed{Your answer}. Assistant:",
        stop=(),
        answer_form="boxed",
    ),
}
