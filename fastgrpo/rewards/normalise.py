r"""One spelling for LaTeX answers that mean the same: `\dfrac12`, `\frac{1}{2}` and `1/2` become one string.

Only notation is rewritten, never values: `0.5` stays `0.5`, and `\frac{2}{4}` stays unreduced. Units, degrees, `$` and `%` are
dropped, so 50% reads as 50: the convention of the MATH benchmark, whose golds omit them freely.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import accumulate

_NUMBER = r"(?=[-+.]*\d)[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?"
_ATOM = r"(\d|[a-zA-Z]|\\pi(?![a-zA-Z]))"
_SCALES = r"(?:hundred|thousand|million|billion|trillion|dozen|pi|or|and)\b"  # words after a number that change its meaning
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # spacing and delimiters without meaning
        (r"(?<!\\)\\\\(?=[a-zA-Z])", r"\\"),
        (r"\\!|\\left(?![a-zA-Z])\s*\.?|\\right(?![a-zA-Z])\s*\.?|\\[bB]igg?[lr]?(?![a-zA-Z])|\\displaystyle(?![a-zA-Z])", ""),
        (r"(?:(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\s)+", " "),
        (r"\\?\$|\\?%|\^\s*\{?\s*\\circ\s*\}?|\N{DEGREE SIGN}", ""),
        ("\N{MINUS SIGN}", "-"),
        # one name for each command
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(ne|le|ge)q(?![a-zA-Z])", r"\\\1"),
        (r"\\(begin|end)\s*\{(?:bmatrix|array)\}(?:\{[lcr| ]*\})?", r"\\\1{pmatrix}"),
        # words: conjunctions separate, a trailing unit goes, any other text is unwrapped
        (r"\\(?:text|mbox)\s*\{\s*(?:and|or)\s*\}|(?<=[^a-zA-Z])(?:and|or)(?=[^a-zA-Z])", ","),
        (r"(?<=\S)\s*\\(?:text|mbox)\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?\s*$", ""),
        (r"(?<=\S)\s*\\mathrm\s*\{ [^{}]*\}(?:\s*\^\s*\{?\d\}?)?\s*$", ""),
        (r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|boldsymbol)\s*\{([^{}]*)\}", r"\1"),
        (rf"^\s*({_NUMBER})\s+(?!{_SCALES})(?:[a-zA-Z]{{2,}}|[mgshl]\b)[a-zA-Z ]*(?:\^\s*\{{?\d\}}?)?\s*$", r"\1"),
        # "x = 5" names what was asked for
        (r"^\s*\\?[a-zA-Z]{1,2}\s*=(?=[^=]+$)", ""),
        # numbers: digits grouped by three, a leading point, a plus sign
        (r"\{,\}", ","),
        (r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])(?=\s*$|\s*\.\d)", lambda match: match.group().replace(",", "")),
        (r"(?<!\d)\.(?=\d)", "0."),
        (r"^\s*\+", ""),
        # arguments without braces: \frac12, \frac{1}2, \sqrt3, a/b of integers
        (rf"\\frac\s*{_ATOM}\s*(?=[\d{{a-zA-Z\\])", r"\\frac{\1}"),
        (rf"(\\frac\s*\{{[^{{}}]*\}})\s*{_ATOM}", r"\1{\2}"),
        (rf"\\sqrt\s*{_ATOM}", r"\\sqrt{\1}"),
        (r"(?<![\w.}/^])(\d+)\s*/\s*(\d+)(?![\w.{/])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*\{\s*-\s*(\d+)\s*\}", r"-\\frac{\1}"),
        # braces around one character, braces of a set
        (r"([_^])\s*\{\s*(\w)\s*\}", r"\1\2"),
        (r"\\[{}]", ""),
        (r"(?<=\d)\.\s*$", ""),
        (r"(\\[a-zA-Z]+\s)\s*(?=[a-zA-Z])|\s+", r"\1"),  # the space in `\pi r` ends the command's name
    )
)
_DECIMAL = re.compile(r"-?\d+(?:\.\d+)?")
_FRACTION = re.compile(r"(-?)\\frac\{(\d+)\}\{(\d+)\}")


def normalise(answer: str) -> str:
    """The normal form of an answer, in lower case and without idle spaces. Empty only when nothing but notation was given."""
    text = answer.strip()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.lower()


def is_integer(normal: str) -> bool:
    """Whether a normal form is an integer: 7, -12, 025, 142.0."""
    return _DECIMAL.fullmatch(normal) is not None and Fraction(normal).denominator == 1


def is_fraction(normal: str) -> bool:
    r"""Whether a normal form is a written fraction of two integers, reduced or not."""
    return _FRACTION.fullmatch(normal) is not None


def number(normal: str) -> Fraction | None:
    r"""The exact value of a normal form that is a plain decimal or `\frac{a}{b}` of integers; None for anything else."""
    if _DECIMAL.fullmatch(normal):
        return Fraction(normal)
    fraction = _FRACTION.fullmatch(normal)
    if fraction is None or int(fraction[3]) == 0:
        return None
    return Fraction(int(fraction[1] + fraction[2]), int(fraction[3]))


def elements(normal: str) -> tuple[str, list[str]]:
    """A tuple, interval or list as (its two brackets, its parts); one part where no comma separates.

    `(1,2)` is ("()", ["1", "2"]) and `1,2` is ("", ["1", "2"]). Commas inside inner brackets do not separate.
    """
    if len(normal) > 2 and normal[0] in "([" and normal[-1] in ")]" and 0 not in _depths(normal)[:-1]:
        return normal[0] + normal[-1], _split(normal[1:-1])
    return "", _split(normal)


def _split(normal: str) -> list[str]:
    cuts = [position for position, depth in enumerate(_depths(normal)) if depth == 0 and normal[position] == ","]
    return [normal[start + 1 : end] for start, end in zip([-1, *cuts], [*cuts, len(normal)], strict=True)]


def _depths(normal: str) -> list[int]:
    """How many brackets are open after each character; brackets need not match in kind, as in [0,1)."""
    return list(accumulate((character in "([{") - (character in ")]}") for character in normal))
