r"""The `fast` grader of arXiv:2503.20783 repeated with its faults: two notations for strings, then short expressions by sympy.

An answer is right when it equals the gold as a string in the notation of the MATH benchmark, or in plain text as for PRM800K, or there
part by part as an expression. The faults are kept on purpose (a variable called `m` is a unit, 3e-10 is the integer 0, `\frac{a+b}{c}` is
a+b/c): they are what published rewards were computed with. README.md lists them beside what the default mode does.

Where the original hands a model's text to sympy's `parse_expr`, and so to `eval`, this reads it with the parser of expression.py, which
knows numbers, letters, `sqrt`, `ln`, `pi` and operators: nothing here is ever evaluated as code.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise, takewhile

from fastgrpo.rewards.compat_units import UNIT_WORDS

MAX_LETTERS = 2  # distinct ones; `pi` counts as two
_UNIT = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(map(re.escape, UNIT_WORDS), key=len, reverse=True))})(?!\w)")
_TEXT = re.compile(r"^\\text\{(.+?)\}$")
_BENCHMARK = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\n|\\!", ""),
        (r"\\\\", r"\\"),
        (r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}"),
        (r"\\end\{array\}", r"\\end{pmatrix}"),
        ("bmatrix", "pmatrix"),
        (r"\\[td]frac", r"\\frac"),
        (r"\\(ne|le|ge)q", r"\\\1"),
        (r"\\left|\\right", ""),
    )
)
_NUMBERS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\^\{\\circ\}|\^\\circ|\\\$|\\%", ""),
        (r"(^|[ {])\.", r"\g<1>0."),
        (r"^[^=]{0,2}=(?=[^=]*$)", ""),
        (r"\\sqrt([^{])", r"\\sqrt{\1}"),
        (" ", ""),
        (r"\\frac([^{])([^{])", r"\\frac{\1}{\2}"),
        (r"\\frac([^{])\{", r"\\frac{\1}{"),
        (r"^0\.5$", r"\\frac{1}{2}"),
        (r"^(0|-?[1-9]\d*)/(0|-?[1-9]\d*)$", r"\\frac{\1}{\2}"),
    )
)
_PLAIN = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\?[%$]", ""),
        (" or | and ", " , "),
        ("million", "*10^6"),
        ("billion", "*10^9"),
        ("trillion", "*10^12"),
        (r"(?:degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard)(?:es)?s? *(?:\^[0-9]+)?", ""),
        (r"\^ *\\circ", ""),
        (r"^\{(.*)\}$", r"\1"),
        (r",\\! *", ""),
    )
)
_SYMBOLS = str.maketrans({"√": "sqrt", "∞": "inf", "∪": "U", "·": "*", "×": "*"})  # noqa: RUF001
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:$|\D))")
_FRACTION = re.compile(r"-?\d+.?/0*[1-9]\d*.?")
_INTEGER = re.compile(r"-?\d+")
_BRACKETS = "()[]"


def grade(answer: str, gold: str) -> bool:
    """Whether the paper's grader calls them equal with `fast`. Imports sympy, unless the strings agree."""
    return same_notation(answer, gold) or same_parts(plain(answer), plain(gold), _parts, whole, _same_expression)


def same_notation(answer: str, gold: str) -> bool:
    """Equality as strings in either notation: what the grader settles without sympy."""
    return benchmark(answer) == benchmark(gold) or plain(answer) == plain(gold)


@lru_cache(maxsize=4096)
def benchmark(text: str) -> str:
    r"""The MATH benchmark's notation: `\frac` and `\sqrt` with braces, no units, no idle spaces."""
    if text.isdecimal():
        return text
    text = _unwrapped(text.strip()).strip()
    normal = _rewritten(text, _BENCHMARK)
    normal = re.sub(r"\\text\{.*?\}$", "", normal).strip() or normal
    for _ in range(2):
        normal = _UNIT.sub("", normal) or normal
    head, unit, tail = normal.partition(r"\text{ ")
    return _rewritten(normal if unit and r"\text{ " in tail else head, _NUMBERS)


def whole(text: str) -> str:
    """Digits alone where text is a number within 1e-7 of an integer, as Python reads numbers: 1e3, 1_000 and 1e-9 are some."""
    try:
        value = float(text)
        return str(round(value)) if abs(value - round(value)) <= 1e-7 else text
    except (ValueError, OverflowError):
        return text


@lru_cache(maxsize=4096)
def plain(text: str, as_whole: Callable[[str], str] = whole, pi: str = "pi") -> str:
    """Plain text for sympy's syntax, in lower case and without spaces and braces; `as_whole` spells integral numbers as digits alone."""
    if text.isdecimal():
        return as_whole(text)
    text = as_whole(_rewritten(_unwrapped(text), _PLAIN))
    if "\\" in text:
        text = _from_latex(text).translate(_SYMBOLS).replace("\N{GREEK SMALL LETTER PI}", pi).strip()
    text = re.sub("- *", "-", text)
    text = re.sub("(?<=[0-9]) +(?=[0-9])", "+", text)  # 7 3/4 is 7+3/4
    text = re.sub("[ {}]", "", text).lower()
    digits = as_whole(_THOUSANDS.sub("", text))
    return digits if _INTEGER.fullmatch(digits) else text


def _from_latex(text: str) -> str:
    from pylatexenc.latex2text import LatexNodes2Text

    logging.getLogger("pylatexenc").setLevel(logging.CRITICAL)  # broken LaTeX from a model is no news
    try:
        return LatexNodes2Text().latex_to_text(re.sub(r"\\[td]?frac", r" \\frac", text))
    except Exception:  # the original keeps what its converter cannot read
        return text


def _unwrapped(text: str) -> str:
    whole = _TEXT.search(text)
    return text if whole is None else whole[1]


def _rewritten(text: str, rules: tuple) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def same_parts(
    answer: str, gold: str, split: Callable[[str], list[str]], as_whole: Callable[[str], str], same: Callable[[str, str], bool]
) -> bool:
    """Equality of plain texts as tuples or intervals, part by part: an integer equals only itself.

    Other parts are left to `same(part, gold_part)`. Brackets must agree where there are several parts; around one they mean nothing.
    """
    if not answer or not gold:
        return False
    parts, gold_parts = split(answer), split(gold)
    if len(parts) != len(gold_parts) or (len(gold_parts) > 1 and (answer[0], answer[-1]) != (gold[0], gold[-1])):
        return False
    for part, gold_part in zip(map(as_whole, parts), map(as_whole, gold_parts), strict=True):
        if part == gold_part:
            continue
        if _INTEGER.fullmatch(part) or _INTEGER.fullmatch(gold_part) or not same(part, gold_part):
            return False
    return True


def _parts(text: str) -> list[str]:
    text = _THOUSANDS.sub("", text)
    inner = text[1:-1]
    if inner and text[0] in _BRACKETS and text[-1] in _BRACKETS and not any(bracket in inner for bracket in _BRACKETS):
        return [part.strip() for part in inner.split(",")]
    return [text]


def light(text: str) -> bool:
    """Whether a text has few enough letters for sympy; the exponents that the original refuses too are outside our grammar."""
    letters = {letter for letter in text.replace("sqrt", "").replace("frac", "") if letter.isalpha()}
    return len(letters) <= MAX_LETTERS


def _same_expression(part: str, gold: str) -> bool:
    from fastgrpo.rewards.expression import is_zero

    if _FRACTION.fullmatch(part) and _FRACTION.fullmatch(gold):
        return False
    difference = f"({gold})-({part})"
    return light(difference) and is_zero(difference)


def refused(answer: str, gold: str) -> bool:
    """Whether the original keeps a pair from Math-Verify: one of more than 128 characters where over a fifth of all substrings recur."""
    return any(len(text) > 128 and _recurrence(text) > 0.2 for text in (answer, gold))


def _recurrence(text: str) -> float:
    """The share of substrings that stood earlier in the text too, from the longest common prefixes of sorted suffixes."""
    suffixes = sorted(text[start:] for start in range(len(text)))
    recurring = sum(len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*pair, strict=False)))) for pair in pairwise(suffixes))
    return 2 * recurring / (len(text) * (len(text) + 1))
