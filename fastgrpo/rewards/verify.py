r"""Whether an answer equals the gold: `fast` by string, number or short expression; `math_verify` by fast, or else by Math-Verify.

`decide_without_symbols` settles most answers in microseconds, without sympy; `equivalent` is what a worker process runs for the rest.
An integer equals only an integer, and a fraction only the same fraction or a decimal, so `fast` refuses `\frac{2}{4}` for `\frac{1}{2}`
and `4/2` for 2 as the grader of arXiv:2503.20783 does; Math-Verify accepts both. No function here limits its own time.
"""

from __future__ import annotations

import logging
import warnings
from fractions import Fraction
from typing import Literal

from fastgrpo.rewards.extract import boxed_answer
from fastgrpo.rewards.normalise import elements, is_fraction, is_integer, normalise, number
from fastgrpo.types import Answer

Verifier = Literal["fast", "math_verify"]

MAX_ANSWER_CHARS = 400  # the longest gold of the five benchmarks has 204; parsers need seconds for a few thousand
_NEARLY = Fraction(1, 10**5)  # Math-Verify rounds to 6 digits, so closer numbers are left to it


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


def decide_without_symbols(answer: str, gold: Answer) -> bool | None:
    """True where the answer equals a gold by string or number, False where it is a plain number that differs from plain numbers.

    None where only a worker can tell. Costs some 50 microseconds; needs neither sympy nor Math-Verify.
    """
    verdicts = [_decide(answer, text) for text in gold_texts(gold)]
    if True in verdicts:
        return True
    return None if None in verdicts else False


def _decide(answer: str, gold: str) -> bool | None:
    normal, gold_normal = normalise(answer), normalise(gold)
    if _equal(normal, gold_normal, _same_number):
        return True
    value, gold_value = number(normal), number(gold_normal)
    if value is None or gold_value is None or "%" in answer + gold:  # 50% and 0.5: Math-Verify knows per cent
        return None
    return False if abs(value - gold_value) > _NEARLY * abs(gold_value) else None


def equivalent(answer: str, gold: Answer, verifier: Verifier) -> bool:
    """Whether the answer equals any of the golds. Imports sympy, may run for ever: call it in a process that can be killed."""
    golds = gold_texts(gold)
    if any(_fast(answer, text) for text in golds):
        return True
    return verifier == "math_verify" and any(_math_verify(answer, text) for text in golds)


def _fast(answer: str, gold: str) -> bool:
    return _equal(normalise(answer), normalise(gold), _same_value)


def _equal(normal: str, gold: str, same) -> bool:
    """Equality of normal forms: as strings, or part by part with `same(part, gold_part) -> bool`.

    Brackets must agree where there are several parts; around a single one, as in `(E)`, they mean nothing.
    """
    if normal == gold:
        return normal != ""
    (brackets, parts), (gold_brackets, gold_parts) = elements(normal), elements(gold)
    if len(parts) != len(gold_parts) or (len(parts) > 1 and brackets != gold_brackets):
        return False
    return all(part == gold_part or same(part, gold_part) for part, gold_part in zip(parts, gold_parts, strict=True))


def _same_number(normal: str, gold: str) -> bool:
    """Equal values of plain numbers that are also written alike: both integers (025, 25.0), or a decimal beside a fraction."""
    value = number(normal)
    if value is None or value != number(gold) or is_integer(normal) != is_integer(gold):
        return False
    return not (is_fraction(normal) and is_fraction(gold))


def _same_value(normal: str, gold: str) -> bool:
    from fastgrpo.rewards.expression import same_expression

    if _same_number(normal, gold):
        return True
    if is_integer(normal) != is_integer(gold) or (number(normal) is not None and number(gold) is not None):
        return False
    return same_expression(normal, gold)


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


def judge(answer: str, gold: Answer, verifier: Verifier) -> bool | None:
    """`equivalent`, or None where an answer makes a parser raise: this is what a pool schedules."""
    try:
        return equivalent(answer, gold, verifier)
    except Exception:  # any error of a parser fed with a model's text is a verdict on that text
        return None


def prepare_worker(verifier: Verifier, memory_bytes: int, cpu_seconds: int) -> None:
    """Sets a fresh worker process up: limits first, then the imports and caches that would otherwise cost the first answer its time.

    Memory beyond the limit raises MemoryError; the limit on processor time ends a worker whose parent died while it was computing.
    SIGTERM gets its default action: a Python handler would wait for the end of an operation on huge integers where gmpy2 is installed.
    """
    import resource
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    equivalent(r"\frac{x}{\sqrt{3}}", r"\frac{x}{2}", verifier)
