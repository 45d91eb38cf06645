r"""Whether an answer equals the gold: `fast` by string, number or short expression; `math_verify` by fast, or else by Math-Verify.

`decide_without_symbols` settles most answers in microseconds, without sympy; `equivalent` is what a worker process runs for the rest.
An integer equals only an integer, and a fraction only the same fraction or a decimal, so `fast` refuses `\frac{2}{4}` for `\frac{1}{2}`
and `4/2` for 2 as the grader of arXiv:2503.20783 does; Math-Verify accepts both. No function here limits its own time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

from fastgrpo.rewards import compat as paper
from fastgrpo.rewards.extract import boxed_answer
from fastgrpo.rewards.normalise import elements, is_fraction, normalise, number, same_but_for_spaces, whole
from fastgrpo.types import Answer

Verifier = Literal["fast", "math_verify"]

MAX_ANSWER_CHARS = 400  # the longest gold of the five benchmarks has 204; parsers need seconds for a few thousand
_NEARLY = Fraction(1, 10**5)  # Math-Verify rounds to 6 digits, so closer numbers are left to it
_WORD = re.compile(r"[^\W\d_]{3,}")  # a word is no product of letters: "listen" is not "silent"


def gold_texts(gold: Answer) -> tuple[str, ...]:
    r"""The spellings that count as right: every entry of a list, integral floats as integers, the content of a gold's own `\boxed`.

    Raises ValueError for an empty list, TypeError for anything but text, numbers and lists of them.
    """
    if isinstance(gold, list):
        if not gold:
            raise ValueError("gold_texts: the gold is an empty list; give at least one answer")
        return tuple(text for entry in gold for text in gold_texts(entry))
    if isinstance(gold, float) and gold.is_integer():
        return (str(int(gold)),)
    if isinstance(gold, (int, float)):
        return (str(gold),)
    if not isinstance(gold, str):
        raise TypeError(f"gold_texts: a gold is text, a number or a list of them, got {type(gold).__name__}")
    boxed, _ = boxed_answer(gold)
    return (gold if boxed is None else boxed,)


def decide_without_symbols(answer: str, gold: Answer, compat: bool = False) -> bool | None:
    """True where the answer equals a gold by string or number, False where it is a plain number that differs from plain numbers.

    None where only a worker can tell. Costs some tens of microseconds for numbers; needs neither sympy nor Math-Verify.
    """
    verdicts = [_decide(answer, text, compat) for text in gold_texts(gold)]
    if True in verdicts:
        return True
    return None if None in verdicts else False


def _decide(answer: str, gold: str, compat: bool) -> bool | None:
    if paper.same_notation(answer, gold) if compat else _equal(answer, gold, _same_number):
        return True
    normal, gold_normal = normalise(answer), normalise(gold)
    value, gold_value = number(normal), number(gold_normal)
    if value is None or gold_value is None or "%" in answer + gold:  # 50% and 0.5: Math-Verify knows per cent
        return None
    if compat and not (value.denominator == gold_value.denominator == 1):
        return None
    return False if abs(value - gold_value) > _NEARLY * abs(gold_value) else None


def equivalent(answer: str, gold: Answer, verifier: Verifier, compat: bool = False) -> bool:
    """Whether the answer equals any of the golds. Imports sympy, may run for ever: call it in a process that can be killed."""
    golds = gold_texts(gold)
    if any(paper.grade(answer, text) if compat else _fast(answer, text) for text in golds):
        return True
    return verifier == "math_verify" and any(_math_verify(answer, text) for text in golds if not (compat and paper.refused(answer, text)))


def _fast(answer: str, gold: str) -> bool:
    return _equal(answer, gold, _same_value)


def _equal(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool:
    return same_but_for_spaces(answer, gold) or paper.same_parts(normalise(answer), normalise(gold), elements, whole, same)


def _same_number(normal: str, gold: str) -> bool:
    """Equal values of plain numbers: two decimals, or a decimal and a fraction, but never two fractions written apart."""
    value = number(normal)
    return value is not None and value == number(gold) and not (is_fraction(normal) and is_fraction(gold))


def _same_value(normal: str, gold: str) -> bool:
    from fastgrpo.rewards.expression import is_zero

    if number(normal) is not None and number(gold) is not None:
        return _same_number(normal, gold)
    difference = f"({gold})-({normal})"
    if paper.light(difference):
        return is_zero(difference)
    return not _WORD.search(difference.replace("sqrt", "")) and is_zero(difference, simplify=False)


def _math_verify(answer: str, gold: str) -> bool:
    """Math-Verify's verdict, without its timeouts, which work by SIGALRM and so only in a main thread."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    parsed_gold, parsed_answer = (
        parse(
            text if "$" in text else f"${text}$",
            extraction_config=(LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()),
            fallback_mode="no_fallback",
            extraction_mode="any_match",
            parsing_timeout=None,
        )
        for text in (gold, answer)
    )
    return bool(verify(parsed_gold, parsed_answer, timeout_seconds=None))
