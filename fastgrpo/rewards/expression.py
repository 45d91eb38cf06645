"""A sympy expression from a short answer, by a parser of our own: nothing that a model wrote is ever passed to eval.

The grammar is that of plain text: + - * / ^ ( ), numbers (exact), letters as symbols, pi, sqrt, ln, ! and implied products.
An exponent is one digit or one symbol, and no number may grow long, so no answer fills the memory.
Load this module in a worker process only, it imports sympy.
"""

from __future__ import annotations

import re

import sympy

MAX_BITS = 4096  # of one number; 100! has 525
_TOKEN = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,2}(?!\d))?|[^\W\d]\w*|[-+*/^()!]")
_SPLIT = re.compile(r"\d+|\D")
_WORDS = ("pi", "sqrt", "ln")
_ENDS = (")", "+", "-", "")


def is_zero(text: str, simplify: bool = True) -> bool:
    """Whether an expression is 0, after simplification if so asked; False where it is outside the grammar."""
    try:
        value = parse(text)
    except ValueError:
        return False
    return value == 0 or (simplify and sympy.simplify(value) == 0)


def parse(text: str) -> sympy.Expr:
    """The expression that a text spells. Raises ValueError outside the grammar, and for a division by zero."""
    words = _TOKEN.findall(text)
    if "".join(words) != re.sub("[ \n]", "", text):
        raise ValueError(f"parse: {text!r} has characters outside the grammar")
    parser = _Parser([token for word in words for token in _letters(word)])
    expression = parser.sum()
    if parser.next or expression.has(sympy.zoo, sympy.nan):
        raise ValueError(f"parse: {text!r} is not one finite expression")
    return expression


def _letters(word: str) -> list[str]:
    """A word that names nothing known is a product: xy is x y, and x2 is x 2. A subscript belongs to its letter: x_1."""
    if not word[0].isalpha() or word in _WORDS or "_" in word:
        return [word]
    return _SPLIT.findall(word)


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

    def group(self) -> sympy.Expr:
        self.take("(")
        inner = self.sum()
        self.take(")")
        return inner

    def sum(self) -> sympy.Expr:
        total = self.product()
        while self.next in ("+", "-"):
            total = total + self.product() if self.take() == "+" else total - self.product()
        return total

    def product(self) -> sympy.Expr:
        value = self.signed()
        while self.next not in _ENDS:
            if self.next == "/":
                self.take()
                value = value / self.signed()
            elif self.next == "*":
                self.take()
                value = value * self.signed()
            else:
                value = value * self.power()
        return value

    def signed(self) -> sympy.Expr:
        if self.next in ("+", "-"):
            return self.signed() if self.take() == "+" else -self.signed()
        return self.power()

    def power(self) -> sympy.Expr:
        value = self.atom()
        while self.next == "!":
            self.take()
            value = _factorial(value)
        if self.next == "^":
            self.take()
            exponent = self.exponent()
            if value.is_Number and max(abs(value.p), value.q).bit_length() * abs(exponent if exponent.is_Integer else 1) > MAX_BITS:
                raise ValueError("a power of more than MAX_BITS is outside the grammar")
            value = value**exponent
            if self.next == "^":
                raise ValueError("towers of powers are outside the grammar")
        return value

    def exponent(self) -> sympy.Expr:
        sign = -1 if self.next == "-" and self.take() == "-" else 1
        token = self.take()
        if not (token.isalpha() or (len(token) == 1 and token.isdecimal())):
            raise ValueError(f"exponent {token!r} is neither a single digit nor a symbol")
        return sign * _value(token)

    def atom(self) -> sympy.Expr:
        if self.next == "(":
            return self.group()
        token = self.take()
        if token == "sqrt":
            return sympy.sqrt(self.group())
        if token == "ln":
            return sympy.log(self.group())
        return _value(token)


def _value(token: str) -> sympy.Expr:
    if token in ("pi", "\N{GREEK SMALL LETTER PI}"):
        return sympy.pi
    if token[0].isdecimal() or token[0] == ".":
        return sympy.Rational(token)
    if token[0].isalpha():
        return sympy.Symbol(token)
    raise ValueError(f"{token!r} is outside the grammar")


def _factorial(value: sympy.Expr) -> sympy.Expr:
    if value.is_number and not (value.is_Integer and 0 <= value <= 100):
        raise ValueError("the factorial of anything but an integer up to 100 is outside the grammar")
    return sympy.factorial(value)
