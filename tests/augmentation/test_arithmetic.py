"""Exact arithmetic on texts from outside: right where it reads, silent where it does not."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.augmentation.arithmetic import asked, equal, evaluate, problem, written

CHEAP = settings(deadline=None, max_examples=150)
NUMBERS = st.integers(0, 999).map(str) | st.decimals(0, 99, places=2).map(str)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+ - * / %".split()), inner).map(
        lambda parts: f"({' '.join(parts)})"
    ),
    max_leaves=6,
)


class TestEvaluate:
    @CHEAP
    @given(EXPRESSIONS)
    def test_is_pythons_own_arithmetic(self, text: str) -> None:
        exact = re.sub(r"[0-9]+(?:\.[0-9]+)?", r"Fraction('\g<0>')", text)
        try:
            wanted = eval(exact)
        except ZeroDivisionError:
            wanted = None
        assert evaluate(text) == wanted

    @CHEAP
    @given(st.integers(-20, 20), st.integers(-9, 9))
    def test_powers(self, base: int, exponent: int) -> None:
        wanted = None if base == 0 and exponent < 0 else Fraction(base) ** exponent
        assert evaluate(f"({base})**({exponent})") == wanted
        assert evaluate(f"({base})^({exponent})") == wanted

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("0.1 + 0.2", Fraction(3, 10)),
            ("1,200 × 3", 3600),
            ("$12 ÷ 60", Fraction(1, 5)),
            ("25% * 80", 20),
            ("17 % 5", 2),
            ("12 x 3", 36),
            ("-3 - -4", 1),
        ],
    )
    def test_signs_of_people(self, text: str, value: Fraction) -> None:
        assert evaluate(text) == value

    @pytest.mark.parametrize(
        "text",
        [
            "__import__('os')",
            "a + 1",
            "f(3)",
            "3(4)",
            "[1][0]",
            "1 if 2 else 3",
            "'a' * 3",
            "True + 1",
            "1 // 2",
            "1 < 2",
            "1j",
            "9**9**9",
            "2**65",
            "2**0.5",
            "10**30 * 10",
            "1/0",
            "007",
            "(" * 100 + "1" + ")" * 100,
            "1+" * 150 + "1",
            "",
            "()",
            "1, 2",
        ],
    )
    def test_refuses(self, text: str) -> None:
        assert evaluate(text) is None

    @CHEAP
    @given(st.text("0123456789.,+-*/%^() x$", max_size=40) | st.text(max_size=30))
    def test_never_raises(self, text: str) -> None:
        evaluate(text)
        asked(text)
        problem(text)


@pytest.mark.parametrize(
    ("question", "expression"),
    [
        ("What is 17 * 23?", "17 * 23"),
        ("Calculate 3 + 4 * (2 - 1).", "3 + 4 * (2 - 1)"),
        ("Please compute: 12 x 12 = ?", "12 * 12"),
        ("2^10", "2^10"),
        ("What is 5?", None),
        ("What is 3 + x?", None),
        ("Tom has 3 + 4 apples. How many?", None),
        ("", None),
    ],
)
def test_what_an_arithmetic_question_asks(question: str, expression: str | None) -> None:
    assert asked(question) == expression


RIGHT = [
    "She sold 48/2 = <<48/2=24>>24 clips in May.\nSo 48+24 = 72 in all.\n#### 72",
    "Weng earns $12/60 = $0.20 a minute. So 0.2 x 50 = $10.",
    "10 / 3 = 3.33",
    "2 + 3 = 5 and then 5 * 2 = 10. The answer is 10.",
    "First 24 ÷ 4 = 6 boxes, thus, 15 - 6 = 9 are left.",
    "If x + 3 = 7 then x = 7 - 3 = 4.",
    "2x + 3 = 7, so 2x = 4",
    "1. 3 * 4 = 12\n- 12 + 1 = 13\n**13**",
    r"\[ \frac{3}{4} \times 8 = 6 \]" + "\nThe answer is \\(\\boxed{6}\\).",
    "12 boxes * 3 pens per box = 36 pens",
    "$600/month * 12 months/year = $7200/year",
    "1/4 * 100 = 25%",
    "9 / 36 = 0.25, which is 25%",
    "It is f(3 + 4) = 9 and 5 = 3 * x",
    "(3 * 4 = 12)",
    "The final price is half of that, 3 * 4 = 12, y = 6. The answer is 6.",
    "No numbers here.",
    "",
]
WRONG = [
    ("3 * 4 = 13", "3 * 4 = 13"),
    ("10 / 3 = 3.4", "10 / 3 = 3.4"),
    ("10 / 3 = 3", "10 / 3 = 3"),
    ("2 + 3 = 5 * 2 = 10", "2 + 3 = 5 * 2"),
    ("$12 + $3 = $16 in all", "12 + 3 = 16"),
    ("She sold 48 clips / 2 = 25 clips", "48 / 2 = 25"),
    ("3 * 4 = 12.\nThe answer is 13.", "computes 12 and answers 13"),
    ("1 / 2 = 0.5. The answer is 2.", "computes 0.5 and answers 2"),
]


class TestProblem:
    @pytest.mark.parametrize("text", RIGHT)
    def test_none_where_nothing_is_wrong(self, text: str) -> None:
        assert problem(text) is None

    @pytest.mark.parametrize(("text", "told"), WRONG)
    def test_tells_what_is_wrong(self, text: str, told: str) -> None:
        assert told in (problem(text) or "")


def test_a_rounded_answer_is_the_value() -> None:
    assert equal(Fraction("3.33"), Fraction(10, 3))
    assert not equal(Fraction("3.3"), Fraction(10, 3))
    assert not equal(Fraction("3.001"), Fraction(3))
    assert written("10 / 4", Fraction(5, 2)) == "10 / 4 = 2.5"
