"""Checks answers that can be computed: arithmetic questions, and steps such as "3 * 4 = 12".

Exact (fractions, not floats) and safe: texts are evaluated over Python's syntax tree, which may
hold nothing but numbers and + - * / % **, with bounds on length, size and exponents.
"""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction
from itertools import pairwise

from quickstudy.awareness.agreement import final_number

_LONGEST = 200  # characters of an expression
_LARGEST = 10**30
_EXPONENT = 64
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_SYMBOLS = str.maketrans(
    {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "$": "", "€": "", "£": ""}
)
_PART = r"[0-9\s.,()+*/%^-]"
_LEFT = re.compile(rf"{_PART}+$")
_RIGHT = re.compile(rf"{_PART}*")
_ASKED = re.compile(
    r"(?:(?:please|can you|could you|what(?:'s| is)|how much is|calculate|compute|evaluate|solve"
    r"|work out|find|tell me|the (?:value|result|answer|sum|product) of)[\s:]+)*",
    re.IGNORECASE,
)


def evaluate(expression: str) -> Fraction | None:
    """The exact value of an arithmetic expression; None where it is none, or too large."""
    text = _symbols(expression).strip()
    if len(text) > _LONGEST or not re.fullmatch(_PART + "+", text):
        return None
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text).replace("^", "**")
    text = re.sub(r"([0-9.]+)%(?!\s*[0-9(])", r"(\1/100)", text)
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def asked(question: str) -> str | None:
    """The expression in a question that is nothing but one: "What is 17 * 23?"; else None."""
    text = question.strip().rstrip("?=. \t\n")
    expression = _symbols(text[_ASKED.match(text).end() :]).strip()  # type: ignore[union-attr]
    return expression if _computes(expression) else None


def problem(text: str) -> str | None:
    """The first thing wrong with an answer's own steps; None where nothing shown is wrong.

    Every stated equation between numbers must hold (to the decimals it states), and a final
    number must be the last one computed.
    """
    computed: Fraction | None = None
    for line in _symbols(text).splitlines():
        segments = re.sub(r"^\s*(?:[-*+•]|[0-9]+[.)])\s+", "", line).split("=")
        for left, right in pairwise(segments):
            step = _step(left, right)
            if step is not None and not _holds(*step):
                return f"it says {step[0]} = {step[1]}"
            # after a step that cannot be read nothing is known of the end
            computed = evaluate(step[1]) if step else None
    final = final_number(text)
    percent = computed is not None and final == 100 * computed
    if computed is not None and final is not None and final != computed and not percent:
        return f"it computes {_told(computed)} and answers {_told(final)}"
    return None


def equal(answer: Fraction, value: Fraction, places: int = 2) -> bool:
    """Whether an answer is a value, exactly or rounded to `places` decimals."""
    return answer == value or (value.denominator > 1 and abs(answer - value) <= _half(places))


def written(expression: str, value: Fraction) -> str:
    """`17 * 23 = 391`"""
    return f"{expression} = {_told(value)}"


def _step(left: str, right: str) -> tuple[str, str] | None:
    """The two sides of an equation, if both are plain arithmetic and the left computes."""
    found = _LEFT.search(left)
    if found is None:
        return None
    before, start = left[: found.start()], re.sub(r"^\s*[.,]\s", " ", found.group())
    after = _RIGHT.match(right)
    assert after is not None  # it may be empty
    rest, end = right[after.end() :], after.group()
    if (before[-1:].isalpha() or before[-1:] == "_") and not start[0].isspace():
        return None  # f(3 + 4), x-3
    if re.match(r"\s*(?:[*/%^+)]|-\s)", start):
        return None  # the rest of something in words or letters
    tail = re.search(r"[\s.,+*/^-]*$", end)
    assert tail is not None
    if re.search(r"[-+*/^]", tail.group()) or (rest[:1].isalpha() and not end[-1:].isspace()):
        return None  # 3 * x, 5x
    if rest.startswith((":", "_", "\\")):
        return None
    sides = _balanced(start.strip()), _balanced(end[: tail.start()].strip())
    return sides if _computes(sides[0]) and evaluate(sides[1]) is not None else None


def _balanced(side: str) -> str:
    """Without a parenthesis around the whole equation, of which this is one side."""
    while side.count("(") > side.count(")") and side.startswith("("):
        side = side[1:].lstrip()
    while side.count(")") > side.count("(") and side.endswith(")"):
        side = side[:-1].rstrip()
    return side


def _computes(expression: str) -> bool:
    return bool(re.search(r"[0-9)%]\s*[-+*/%^]+\s*[-(0-9.]", expression)) and (
        evaluate(expression) is not None
    )


def _holds(left: str, right: str) -> bool:
    one, other = evaluate(left), evaluate(right)
    assert one is not None  # `_step` has evaluated both
    assert other is not None
    decimals = re.fullmatch(r"-?[0-9,]*\.([0-9]+)", right)
    if right.endswith("%") and one == evaluate(right[:-1]):
        return True  # 1 / 4 * 100 = 25%
    return one == other or bool(decimals and abs(one - other) <= _half(len(decimals.group(1))))


def _half(places: int) -> Fraction:
    return Fraction(1, 2 * 10**places)


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            value = Fraction(repr(number))  # 0.1 is a tenth
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            value = -_value(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            value = _value(inner)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            value = _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            value = _OPERATORS[type(op)](_value(left), _value(right))
        case _:
            raise ValueError(f"{type(node).__name__} is no arithmetic")
    if max(abs(value.numerator), value.denominator) > _LARGEST:
        raise ValueError("too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > _EXPONENT:
        raise ValueError("no small whole exponent")
    return Fraction(base**exponent.numerator)


def _symbols(text: str) -> str:
    """The text with its signs as Python has them, without currencies, units and markup."""
    text = re.sub(r"<<[^<>]*>>", "", text)  # GSM8K's calculator marks
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r" \1", text)
    text = text.replace(r"\times", "*").replace(r"\cdot", "*").replace(r"\div", "/")
    text = re.sub(r"\\[()\[\]%$,]", lambda m: "%" if m.group() == r"\%" else " ", text)
    text = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"(?<![\w)])\*\*([^\n]+?)\*\*(?![\w(])", r"\1", text).translate(_SYMBOLS)
    text = re.sub(r"(?<=[0-9)])\s*[xX]\s*(?=[0-9(])", " * ", text)
    text = re.sub(r"(?<=[0-9])((?:[ \t]*[A-Za-z]+)?/[A-Za-z]{2,})+\b", "", text)  # 600/month
    return re.sub(r"(?<=[0-9])(?:[ \t]*[A-Za-z]{2,}){1,3}(?=[ \t]*[-+*/=)])", "", text)


def _told(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.10g}"
