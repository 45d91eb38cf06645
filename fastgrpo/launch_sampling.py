"""From the arguments of `fastgrpo sample` to responses: one problem at a time, each response heard while it is drawn.

A response depends on the prompt, the seed and its own number alone: whoever asks again with the same seed gets the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastgrpo.config_kind import load_any
from fastgrpo.data import render_prompts
from fastgrpo.errors import InputError
from fastgrpo.evaluate import request_seed
from fastgrpo.launch_evaluation import NEVER_DROPPED, find_endpoint, require_choices, text_prompts
from fastgrpo.model_source import Subject, find_subject, model_directory
from fastgrpo.rewards import Grader
from fastgrpo.templates import TEMPLATES
from fastgrpo.types import Answer, Problem, Response, Sampling

if TYPE_CHECKING:
    from fastgrpo.rollout.native import NativeEngine

PLAIN = {"temperature": 1.0, "max_new_tokens": 3000, "dtype": "bfloat16"}  # of what is no run; a run's own are those it was trained with
CHOICES = {"verifier": ("fast", "math_verify"), "dtype": ("float32", "bfloat16", "float64"), "template": tuple(TEMPLATES)}


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """The arguments of `fastgrpo sample`, under their names there; "" and None are the run's own."""

    model: str
    step: str
    template: str
    n: int
    temperature: float | None
    max_new_tokens: int | None
    seed: int
    verifier: str
    dtype: str
    served_model: str
    chat: bool
    concurrency: int = 1


class Sitting:
    """A model that answers problem after problem. `model` is its path or a server's name of it."""

    def __init__(self, request: SampleRequest, say: Callable[[str], None]):
        """Loads the model. Raises the errors of fastgrpo.errors."""
        subject = find_subject(request.model, request.step)
        self.request = request = filled(request, subject)
        require_choices(request, CHOICES)
        self.template = TEMPLATES[request.template]
        self._endpoint = find_endpoint(subject, request)
        self.model = self._endpoint.model if self._endpoint else subject.path
        self._engine = None if self._endpoint else load_engine(model_directory(subject.path, say), request.dtype)

    def draw(self, problem: str, number: int, on_text: Callable[[str], None]) -> Response:
        """Response `number` to the problem; `on_text` hears it piece by piece, from a server all at once."""
        request = self.request
        sampling = Sampling(request.temperature, request.max_new_tokens, self.template.stop)
        seeds = [[request_seed(request.seed, "sample", number)]]
        asked = [Problem("problem", problem, "")]
        if self._endpoint is not None:
            ((response,),) = self._endpoint.generate(text_prompts(asked, request.template), 1, sampling, seeds)
            on_text(response.text)
            return response
        prompts, _ = render_prompts(asked, self.template, self._engine.tokenizer, NEVER_DROPPED)
        require_room(self._engine.model, len(prompts[0].token_ids), request.max_new_tokens)
        stream = TextStream(self._engine.tokenizer, on_text)
        ((response,),) = self._engine.generate(prompts, 1, sampling, seeds, on_token=lambda i, j, token: stream.put(token))
        stream.end(response.text)
        return response

    def verdict(self, response: Response, gold: Answer) -> dict:
        """How training would grade the response: a truncated one is wrong."""
        with Grader(self.template.answer_form, self.request.verifier) as grader:
            (grade,) = grader.grade([(response.text, gold)])
        right = grade.reward == 1 and not response.truncated
        return {"right": right, "formatted": grade.formatted, "truncated": response.truncated, "grading": grade.status}


class TextStream:
    """Tokens as text, as soon as they are whole characters. All pieces together are the decoded response."""

    def __init__(self, tokenizer, on_text: Callable[[str], None]):
        self._tokenizer, self._on_text = tokenizer, on_text
        self._ids: list[int] = []
        self._shown = ""

    def put(self, token: int) -> None:
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # the first bytes of a character
            self._show(text)

    def end(self, text: str) -> None:
        self._show(text)

    def _show(self, text: str) -> None:
        if text.startswith(self._shown) and text != self._shown:
            self._on_text(text[len(self._shown) :])
            self._shown = text


def filled(request: SampleRequest, subject: Subject) -> SampleRequest:
    """With what was left open: as the run was trained, or as is usual."""
    own, template = PLAIN, request.template
    if subject.run is not None:
        config = load_any(str(subject.run)).config
        own = {name: getattr(config, name, PLAIN[name]) for name in PLAIN}  # pretraining has no budget of a response
        template = template or getattr(config, "template", "")
    if not template:
        raise InputError(f"--template is needed: {', '.join(TEMPLATES)}. For a base model try `no`; a run of `fastgrpo train` has its own")
    given = {name: getattr(request, name) for name in PLAIN}
    chosen = {name: own[name] if value in (None, "") else value for name, value in given.items()}
    return replace(request, template=template, **chosen)


def load_engine(path: str, dtype: str) -> NativeEngine:
    from fastgrpo.model import load_model, load_tokenizer
    from fastgrpo.rollout.native import NativeEngine

    tokenizer = load_tokenizer(path)
    return NativeEngine(load_model(path, dtype), tokenizer)


def require_room(model, prompt: int, max_new_tokens: int) -> None:
    """Raises InputError where a response may outgrow the positions that the model knows."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and prompt + max_new_tokens > context:
        raise InputError(
            f"the prompt has {prompt} tokens, and --max-new-tokens {max_new_tokens} more exceed the model's context of {context}: lower it"
        )
