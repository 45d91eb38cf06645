r"""Where the answer stands in a response: in the last `\boxed{...}`, or between answer tags.

Both are strict on purpose. An earlier box never stands in for a broken last one, and text without a box holds no answer at all:
every leniency here is something that a policy learns to exploit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

Form = Literal["boxed", "answer_tag"]
Extracted = tuple[str | None, bool]
"""(the answer, or None where there is none to compare; whether the response had the required form)."""

_BOX = "\\boxed"
_ESCAPED_OR_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def boxed_answer(text: str) -> Extracted:
    r"""The content of the last `\boxed` in text, which must be followed at once by a balanced `{...}`.

    Braces escaped as `\{` do not count towards the balance. (None, False) when there is no box, or the last is malformed.
    """
    start = text.rfind(_BOX)
    opening = start + len(_BOX)
    if start < 0 or text[opening : opening + 1] != "{":
        return None, False
    depth = 0
    for token in _ESCAPED_OR_BRACE.finditer(text, opening):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return text[opening + 1 : token.start()], True
    return None, False


def tagged_answer(text: str) -> Extracted:
    r"""What stands between the last `<answer>` and its `</answer>`; the content of a `\boxed{...}` in it, if it holds one.

    The form is right when text holds the literal `</think> <answer>`, with exactly one space, and `</answer>`.
    (None, True) when the form is right but the last `<answer>` is never closed, or its box is malformed.
    """
    if "</think> <answer>" not in text or "</answer>" not in text:
        return None, False
    answer, closing, _ = text[text.rfind("<answer>") + len("<answer>") :].partition("</answer>")
    if not closing:
        return None, True
    if _BOX in answer:
        return boxed_answer(answer)[0], True
    return answer, True


def extractor(form: Form) -> Callable[[str], Extracted]:
    """The function that reads answers of this form. Raises ValueError for an unknown form."""
    if form == "boxed":
        return boxed_answer
    if form == "answer_tag":
        return tagged_answer
    raise ValueError(f"extractor: form {form!r} is neither 'boxed' nor 'answer_tag'")
