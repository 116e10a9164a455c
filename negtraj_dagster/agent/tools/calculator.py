"""Evaluates one line of arithmetic with its own parser: no `eval`, no names, bounded size, exact rationals."""

import re
from fractions import Fraction

MAX_CHARS = 200
MAX_DEPTH = 20
MAX_BITS = 4096
"""A result (or a step towards it) of more bits is refused, so a tower of multiplications cannot eat memory."""

TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<symbol>[-+*/()]))")


class CalculatorError(ValueError):
    """The text is not arithmetic this calculator does; the message says why."""


def calculate(argument: str) -> str:
    """Evaluate + - * / and parentheses over decimal numbers; whole results print whole, others with two decimals.

    Never raises: a bad expression comes back as `Error: …`, which is what an agent sees.
    """
    try:
        return _format(evaluate(argument))
    except CalculatorError as error:
        return f"Error: {error}"


def evaluate(text: str) -> Fraction:
    """The exact value of an arithmetic expression.

    Raises:
        CalculatorError: not arithmetic, too long, too deep, too large, or a division by zero.
    """
    if len(text) > MAX_CHARS:
        raise CalculatorError(f"expression longer than {MAX_CHARS} characters")
    parser = _Parser(_tokens(text))
    value = parser.sum(0)
    if parser.peek() is not None:
        raise CalculatorError(f"unexpected {parser.peek()!r}")
    return value


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = TOKEN.match(stripped, position)
        if not match:
            raise CalculatorError(f"unexpected {stripped[position:].lstrip()[:1]!r}")
        tokens.append(match["number"] or match["symbol"])
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent over the token list; depth and operand size are bounded."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.position = tokens, 0

    def peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise CalculatorError("expression ends too soon")
        self.position += 1
        return token

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value = _bounded(value + sign * self.product(depth))
        return value

    def product(self, depth: int) -> Fraction:
        value = self.factor(depth)
        while self.peek() in ("*", "/"):
            if self.take() == "*":
                value = _bounded(value * self.factor(depth))
            else:
                divisor = self.factor(depth)
                if divisor == 0:
                    raise CalculatorError("division by zero")
                value = _bounded(value / divisor)
        return value

    def factor(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise CalculatorError(f"nested deeper than {MAX_DEPTH}")
        token = self.take()
        if token in ("-", "+"):
            value = self.factor(depth + 1)
            return -value if token == "-" else value
        if token == "(":
            value = self.sum(depth + 1)
            if self.take() != ")":
                raise CalculatorError("missing )")
            return value
        if not token[0].isdigit():
            raise CalculatorError(f"unexpected {token!r}")
        return Fraction(token)


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise CalculatorError("number too large")
    return value


def _format(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(round(value, 2)):.2f}" if abs(value) < 10**15 else f"{value.numerator}/{value.denominator}"
