r"""Where the answer stands in a response: in the last `\boxed{...}`, or between answer tags.

Both are strict on purpose. An earlier box never stands in for a broken last one, and text without a box holds no answer at all:
every leniency here is something that a policy learns to exploit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Literal

Form = Literal["boxed", "answer_tag", "orz_tag"]
Extracted = tuple[str | None, bool]
"""(the answer, or None where there is none to compare; whether the response had the required form)."""

_BOX = "\\boxed"
_ESCAPED_OR_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BRACE = re.compile(r"[{}]")


def boxed_answer(text: str, compat: bool = False) -> Extracted:
    r"""The content of the last `\boxed` in text, which must be followed at once by a balanced `{...}`.

    Braces escaped as `\{` do not count towards the balance, but with `compat` they do. (None, False) when there is no box, or the last
    is malformed.
    """
    start = text.rfind(_BOX)
    opening = start + len(_BOX)
    if start < 0 or text[opening : opening + 1] != "{":
        return None, False
    depth = 0
    for token in (_BRACE if compat else _ESCAPED_OR_BRACE).finditer(text, opening):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return text[opening + 1 : token.start()], True
    return None, False


def tagged_answer(text: str, compat: bool = False) -> Extracted:
    r"""What stands after the last `<answer>`, up to `</answer>` if one follows; the content of a `\boxed{...}` in it, if it holds one.

    The form is right when text holds the literal `</think> <answer>`, with exactly one space, and `</answer>`. (None, True) when the
    form is right but the box is malformed. With `compat` the answer goes on to the end of the text, without any `</answer>`.
    """
    return _tagged(text, "</think> <answer>", compat)


def orz_answer(text: str, compat: bool = False) -> Extracted:
    """As `tagged_answer`, in the form of Open-Reasoner-Zero: nothing is asked of what stands before `<answer>`."""
    return _tagged(text, "<answer>", compat)


def _tagged(text: str, opening: str, compat: bool) -> Extracted:
    if opening not in text or "</answer>" not in text:
        return None, False
    rest = text[text.rfind("<answer>") + len("<answer>") :]
    answer = rest.replace("</answer>", "") if compat else rest.partition("</answer>")[0]
    if _BOX in answer:
        return boxed_answer(answer, compat)[0], True
    return answer, True


def extractor(form: Form, compat: bool = False) -> Callable[[str], Extracted]:
    """The function that reads answers of this form, as the paper's grader does if `compat`. Raises ValueError for an unknown form."""
    forms = {"boxed": boxed_answer, "answer_tag": tagged_answer, "orz_tag": orz_answer}
    if form not in forms:
        raise ValueError(f"extractor: form {form!r} is none of {', '.join(map(repr, forms))}")
    return partial(forms[form], compat=compat)
