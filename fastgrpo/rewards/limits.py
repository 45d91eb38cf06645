r"""Which answers would only burn their deadline: a look at the text, before any worker sees it.

The bounds were set by timing Math-Verify: what lies beyond takes longer than a second, far beyond it takes for ever. Below them lie all
that one meets as an answer, such as 2^{2019}, 1000!, \binom{2019}{7}, (x+1)^{100} and \sum_{k=1}^{n} k. What slips through, definite
integrals above all, still meets the deadline.
"""

from __future__ import annotations

import math
import re

MAX_DEPTH = 15  # of brackets; Math-Verify's time doubles with every few, `{{{x}}}` 30 deep takes more than 4 s
MAX_BITS = 2.0**22  # of a number: 3^{1000000} has 1.6 million and takes 0.1 s, 3^{10000000} takes 2.5 s
MAX_ARGUMENT = 17.0  # bits of n in n!, \binom{n}{k} and \Gamma(n), so n < 131,072: 99999! takes 0.1 s, 999999! more than 4 s
MAX_RANGE = 13.3  # bits of the last index of a \sum or \prod, so about 10,000, which takes 1 s
MAX_TERMS = 900  # of an expanded power of a sum: (a+b+c)^{40} has 861 and takes 1.4 s

_TOKEN = re.compile(r"\\[a-zA-Z]+|[0-9]+|\*\*|!+|[^\s0-9]")
_CLOSING = {"{": "}", "(": ")", "[": "]"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class _TooHeavy(Exception):
    pass


def too_heavy(answer: str) -> bool:
    """Whether comparing this answer would take longer than any deadline allows, or it holds control characters. Takes microseconds."""
    if _CONTROL.search(answer) or _depth(answer) > MAX_DEPTH:
        return True
    try:
        tokens = _Tokens(_TOKEN.findall(answer))
        while tokens.rest():
            tokens.product("")
            tokens.take()  # a bracket that closes nothing
    except _TooHeavy:
        return True
    return False


def _depth(answer: str) -> int:
    depth = deepest = 0
    for character in answer:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return deepest


class _Tokens:
    """Reads tokens and bounds the bits of the number they spell, as if every operator were a product and every letter, 0 and 1 were 2.

    That is never below the truth: a sum of numbers from 2 on is at most their product. Each method consumes what it measures.
    """

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.position = 0

    def rest(self) -> bool:
        return self.position < len(self.tokens)

    def next(self) -> str:
        return self.tokens[self.position] if self.rest() else ""

    def take(self) -> str:
        token = self.next()
        self.position += 1
        return token

    def product(self, closing: str) -> float:
        """Bits of everything up to `closing` or the end, which is left to the caller."""
        bits = 0.0
        while self.rest() and self.next() != closing and self.next() not in ")}]":
            bits += self.power()
            _check(bits, MAX_BITS)
        return bits

    def power(self) -> float:
        """Bits of one atom with its factorials, subscripts and exponents."""
        start = self.position
        bits = self.atom()
        end = self.position
        while (token := self.next()) and (token in ("^", "**", "_") or token[0] == "!"):
            self.take()
            if token[0] == "!":
                bits = _factorial(bits)
            elif token == "_":
                self.atom()
            else:
                exponent = self.power()
                if self.tokens[start] in ("\\sum", "\\prod"):
                    _check(exponent, MAX_RANGE)
                _check(math.log2(max(bits, 1.0)) + exponent, math.log2(MAX_BITS))  # before 2**exponent, which may not be a float
                bits *= 2**exponent
                _check(_terms(self.tokens[start:end], 2**exponent), MAX_TERMS)
        return bits

    def atom(self) -> float:
        """Bits of a number, a letter, a group, or a command, whose arguments are further atoms unless its value depends on them."""
        token = self.take()
        if token in _CLOSING:
            bits = self.product(_CLOSING[token])
            self.take()
            return bits
        if token in ("\\binom", "\\dbinom", "\\tbinom", "\\Gamma"):
            argument = self.power() if self.rest() else 0.0
            _check(argument, MAX_ARGUMENT)
            return 2**argument
        if token.isascii() and token.isdecimal():
            return max(1.0, math.log2(int(token) or 1)) if len(token) < 300 else len(token) * math.log2(10)
        return 1.0 if token.isalpha() else 0.0


def _factorial(bits: float) -> float:
    _check(bits, MAX_ARGUMENT)
    return bits * 2**bits


def _terms(base: list[str], exponent: float) -> float:
    """How many terms a power of this base has when expanded; 1 where the base is no sum with a letter in it."""
    letters = any(token.isalpha() for token in base)
    summands = 1 + sum(token in "+-" for token in base[2:]) if letters else 1
    return math.comb(round(exponent) + summands - 1, summands - 1) if summands > 1 else 1


def _check(value: float, most: float) -> None:
    if value > most:
        raise _TooHeavy
