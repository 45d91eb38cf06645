r"""One plain-text spelling for answers that mean the same: `\dfrac12`, `\frac{1}{2}` and `1/2` become one string.

Only notation is rewritten, never values: `0.5` stays `0.5`, and `\frac{2}{4}` stays unreduced. Units, degrees, `$` and `%` are
dropped, so 50% reads as 50: the convention of the MATH benchmark, whose golds omit them freely.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from fastgrpo.rewards import compat
from fastgrpo.rewards.compat_units import UNIT_WORDS

PI = "\N{GREEK SMALL LETTER PI}"  # one character, so that it never runs into a letter beside it
_STYLE = r"\\(?:text|mbox|fbox|boxed|textbf|textit|textrm|mathrm|mathbf|mathit|boldsymbol|operatorname)"
_POWER = r"(?:\s*\^\s*\{?-?\d\}?)?"
_WORDS = "|".join(sorted(map(re.escape, UNIT_WORDS), key=len, reverse=True))
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # spacing and delimiters without meaning
        (r"(?<!\\)\\\\(?=[a-zA-Z])", r"\\"),
        (r"\\\\\[[^\[\]]*\]", r"\\\\"),
        (r",\\!\s*(?=\d)", ""),
        (r"\\!|\\left(?![a-zA-Z])\s*\.?|\\right(?![a-zA-Z])\s*\.?|\\[bB]igg?[lr]?(?![a-zA-Z])|\\displaystyle(?![a-zA-Z])", ""),
        (r"\{,\}", ","),
        (r"(?:(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\s)+", " "),
        (r"\\?\$|\\[()\[\]]|\\?%|\^\s*\{?\s*\\circ(?:\s*\})?|\N{DEGREE SIGN}|\\deg(?:ree)?(?![a-zA-Z])", ""),
        (r"(\\[a-zA-Z]+)(?=\\)", r"\1 "),
        ("\N{MINUS SIGN}", "-"),
        (r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d.,/])", lambda match: match.group().replace(" ", "")),
        (r"\\pi(?![a-zA-Z])|(?<![a-zA-Z\\])pi(?![a-zA-Z])", PI),
        # words: conjunctions separate, a trailing unit goes, any other text is unwrapped
        (rf"{_STYLE}\s*\{{\s*(?:and|or)\s*\}}|(?<= )(?:and|or)(?= )", ","),
        (rf"(?<=\S)(?:\s*\\(?:text|mbox)\s*\{{[^{{}}]*\}}{_POWER})+[\s.]*$", ""),
        (rf"(?<=[\d}}])\s*\\mathrm\s*\{{[^{{}}]*\}}{_POWER}[\s.]*$", ""),
        (rf"(?:(?<=[\d}})\]])|(?<=\S)(?!\s+\w\b))(?:\s+(?:{_WORDS}){_POWER})+[\s.]*$", ""),
        # what the converter to plain text would lose or merge
        (r"\\neq?(?![a-zA-Z])", "\N{NOT EQUAL TO}"),
        (r"\\geqslant(?![a-zA-Z])", r"\\ge "),
        (r"\\leqslant(?![a-zA-Z])", r"\\le "),
        (r"\\begin\s*\{(?:bmatrix|array)\}(?:\{[lcr| ]*\})?", r"\\begin{pmatrix}"),
        (r"\\end\s*\{(?:bmatrix|array)\}", r"\\end{pmatrix}"),
        # arguments without braces: \frac12, \frac{1}2, \sqrt3
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (rf"\\frac\s*([\da-zA-Z{PI}])\s*(?=[\d{{a-zA-Z{PI}\\])", r"\\frac{\1}"),
        (rf"(\\frac\s*\{{[^{{}}]*\}})\s*([\da-zA-Z{PI}])", r"\1{\2}"),
        (rf"\\sqrt\s*([\da-zA-Z{PI}])", r"\\sqrt{\1}"),
        (r"(?<=[\d})])\.\s*$", ""),
    )
)
_INNERMOST = tuple(  # applied from the inside out, as long as any matches
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"{_STYLE}\s*\{{([^{{}}]*)\}}", r"\1"),
        (r"(?<![\d.])(\d+) *\\frac\s*\{ *(\d+) *\}\s*\{ *(\d+) *\}", r"(\1+\2/\3)"),
        (r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", lambda match: f" {_grouped(match[1])}/{_grouped(match[2])}"),
        (r"\\sqrt\s*\[([^\[\]{}]*)\]\s*\{([^{}]*)\}", r"(\2)^(1/(\1))"),
        (r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)"),
        (r"\\[dt]?binom\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"binom(\1,\2)"),
        (r"\^\s*\{\s*(-?\s*\w)\s*\}", r"^\1"),
        (r"\^\s*\{([^{}]*)\}", r"^(\1)"),
        (r"_\s*\{([^{}]*)\}", r"_\1"),
    )
)
_MIXED = re.compile(r"(?<![\d.])(\d+) +(\d+)/(\d+)(?![\d.])")
_NAME = re.compile(r"^[a-z]{1,2}=(?=[^=]+$)")  # "x = 5" names what was asked for
_IDLE = re.compile(r"(?<!\d)[\s$]+|[\s$]+(?!\d)")
_ATOM = re.compile(rf"-?(?:[\d.]+|[a-zA-Z{PI}])")
_DECIMAL = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,2})?")
_FRACTION = re.compile(r"-?\d+/\d+")


@lru_cache(maxsize=4096)
def normalise(answer: str) -> str:
    """The normal form of an answer, in lower case and without idle spaces. Empty only when nothing but notation was given."""
    text = answer.strip()
    if _DECIMAL.fullmatch(text):
        return whole(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    before = None
    while text != before:
        before = text
        for pattern, replacement in _INNERMOST:
            text = pattern.sub(replacement, text)
    normal = compat.plain(_MIXED.sub(r"(\1+\2/\3)", text).strip().removeprefix("+"), whole, PI)
    return _NAME.sub("", normal)


def elements(normal: str) -> list[str]:
    """The parts of a tuple or interval; one part without its brackets otherwise. Commas inside inner brackets do not separate."""
    while len(normal) > 2 and normal[0] in "([" and normal[-1] in ")]" and 0 not in _depths(normal)[:-1]:
        inner = normal[1:-1]
        cuts = [position for position, depth in enumerate(_depths(inner)) if depth == 0 and inner[position] == ","]
        if cuts:
            return [inner[start + 1 : end] for start, end in zip([-1, *cuts], [*cuts, len(inner)], strict=True)]
        normal = inner
    return [normal]


def _depths(normal: str) -> list[int]:
    """How many brackets are open after each character; brackets need not match in kind, as in [0,1)."""
    return list(accumulate((character in "([") - (character in ")]") for character in normal))


def same_but_for_spaces(answer: str, gold: str) -> bool:
    """Whether two answers are one string, apart from `$` and from spaces that do not part two digits."""
    return _IDLE.sub("", answer) == _IDLE.sub("", gold) != ""


def _grouped(text: str) -> str:
    text = text.strip()
    return text if _ATOM.fullmatch(text) else f"({text})"


def whole(text: str) -> str:
    """Digits alone where text is a decimal with an integer's value, as 025, 142.0 and 1e3; the text itself otherwise."""
    if not _DECIMAL.fullmatch(text):
        return text
    value = Fraction(text)
    return str(value.numerator) if value.denominator == 1 else text


def is_fraction(normal: str) -> bool:
    """Whether a normal form is a written fraction of two integers, reduced or not."""
    return _FRACTION.fullmatch(normal) is not None


def number(normal: str) -> Fraction | None:
    """The exact value of a normal form that is a decimal or a fraction of integers; None for anything else."""
    try:
        return Fraction(normal) if _DECIMAL.fullmatch(normal) or is_fraction(normal) else None
    except ZeroDivisionError:
        return None
