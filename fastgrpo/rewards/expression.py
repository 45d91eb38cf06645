r"""A sympy expression from a short LaTeX answer, by a parser of our own: nothing that a model wrote is ever passed to eval.

The grammar is small: + - * / ^ ( ), decimals (exact), one-letter symbols, \pi, \frac, \sqrt, \cdot, \times, implied products and mixed
numbers. Exponents are single digits: with them, no answer of a few hundred characters builds a number that fills the memory.
Load this module in a worker process only, it imports sympy.
"""

from __future__ import annotations

import re

import sympy

MAX_SYMBOLS = 2  # simplification is slow and fragile beyond
_TOKEN = re.compile(r"\\[a-z]+|\d+(?:\.\d+)?|[-+*/^(){}\[\]a-z]")
_MIXED = re.compile(r"(\d+)\\frac\{(\d+)\}\{(\d+)\}")
_ENDS = (")", "}", "]", "+", "-", "")


def same_expression(answer: str, gold: str) -> bool:
    """Whether two normal forms are equal as expressions; False where one is outside the grammar or too many symbols need simplifying."""
    try:
        difference = parse(answer) - parse(gold)
    except ValueError:
        return False
    return difference == 0 or (len(difference.free_symbols) <= MAX_SYMBOLS and sympy.simplify(difference) == 0)


def parse(normal: str) -> sympy.Expr:
    """The expression that a normal form spells. Raises ValueError outside the grammar, and for a division by zero."""
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", normal)
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text.replace(" ", ""):
        raise ValueError(f"parse: {normal!r} has characters outside the grammar")
    parser = _Parser(tokens)
    expression = parser.sum()
    if parser.next or expression.has(sympy.zoo, sympy.nan):
        raise ValueError(f"parse: {normal!r} is not one finite expression")
    return expression


class _Parser:
    """Recursive descent over tokens; each method consumes what it returns."""

    def __init__(self, tokens: list[str]):
        self.tokens = [*tokens, ""]
        self.position = 0

    @property
    def next(self) -> str:
        return self.tokens[self.position]

    def take(self, expected: str = "") -> str:
        token = self.next
        if not token or (expected and token != expected):
            raise ValueError(f"expected {expected or 'a token'}, found {token!r}")
        self.position += 1
        return token

    def group(self, opening: str, closing: str) -> sympy.Expr:
        self.take(opening)
        inner = self.sum()
        self.take(closing)
        return inner

    def sum(self) -> sympy.Expr:
        total = self.product()
        while self.next in ("+", "-"):
            total = total + self.product() if self.take() == "+" else total - self.product()
        return total

    def product(self) -> sympy.Expr:
        if self.next in ("+", "-"):
            return self.product() if self.take() == "+" else -self.product()
        value = self.power()
        while self.next not in _ENDS:
            if self.next in ("/", "\\div"):
                self.take()
                value = value / self.power()
                continue
            if self.next in ("*", "\\cdot", "\\times"):
                self.take()
            value = value * self.power()
        return value

    def power(self) -> sympy.Expr:
        value = self.atom()
        if self.next == "^":
            self.take()
            value = value ** self.exponent()
            if self.next == "^":
                raise ValueError("towers of powers are outside the grammar")
        return value

    def exponent(self) -> int:
        braced = self.next == "{" and self.take() == "{"
        sign = -1 if self.next == "-" and self.take() == "-" else 1
        digit = self.take()
        if len(digit) != 1 or not digit.isdecimal():
            raise ValueError(f"exponent {digit!r} is not a single digit")
        if braced:
            self.take("}")
        return sign * int(digit)

    def atom(self) -> sympy.Expr:
        if self.next in ("(", "{", "["):
            return self.group(self.next, {"(": ")", "{": "}", "[": "]"}[self.next])
        token = self.take()
        if token[0].isdecimal():
            return sympy.Rational(token)
        if token.isalpha():
            return sympy.Symbol(token)
        if token == "\\pi":
            return sympy.pi
        if token == "\\frac":
            return self.group("{", "}") / self.group("{", "}")
        if token == "\\sqrt":
            degree = self.group("[", "]") if self.next == "[" else sympy.Integer(2)
            return self.group("{", "}") ** (1 / degree)
        raise ValueError(f"{token!r} is outside the grammar")
