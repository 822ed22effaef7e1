"""When two answers in words say the same."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.awareness.agreement import clusters, final_number, nearest, same_answer

CHEAP = settings(deadline=None, max_examples=100)
TEXTS = st.text(max_size=60) | st.from_regex(
    r"(The answer is |#### |\\boxed\{|No, |B\) )?-?[0-9,./=$ ]{0,12}[a-z .!?']{0,20}",
    fullmatch=True,
)


class TestFinalNumber:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("72", 72),
            ("She sold 48 + 24 = 72 clips in all.", 72),
            ("She earns 12/60 = $0.20 a minute.\n#### 10", 10),
            (r"So \(x = \boxed{1,234.5}\).", Fraction(2469, 2)),
            ("The answer is 72 clips in 2 months. Ask me 3 more things!", 72),
            ("**Answer:** -7", -7),
            ("In April 48, in May 24, so altogether 72.", 72),
            ("There are 12 of them. Each costs $1.50", Fraction(3, 2)),
            ("It is 3/4 of the cake", Fraction(3, 4)),
            ("Between 3-5 pages", 5),
            ("12% is left", 12),
            ("1/0", 1),
            ("minus -$3.", -3),
            ("the answer: −3.", -3),
            ("-0.0", 0),
            ("#### 007", 7),
            ("version 1.2.3", None),
            ("(3,4)", None),
            ("1" * 100, None),
            ("Paris", None),
            ("Nothing left. 3 ways. Great job!", None),
            ("The answer is Paris", None),
            ("", None),
        ],
    )
    def test_reads(self, text: str, number: Fraction | None) -> None:
        assert final_number(text) == number

    @CHEAP
    @given(TEXTS)
    def test_never_raises(self, text: str) -> None:
        assert final_number(text) is None or isinstance(final_number(text), Fraction)

    def test_endless_digits_are_no_number(self) -> None:
        assert final_number("9" * 9000) is None


SAME = [
    ("72", "The total is 72 clips."),
    ("The  Hague", " the hague!\n"),
    ("It is 0.5", "x = 0.50"),
    ("12 apples", "12 Apple."),
    ("$10", "She earned 10.00 dollars"),
    ("Paris", "paris."),
    ("Paris", "The capital of France is Paris."),
    ("The answer is Rome.", "rome"),
    ("Yes, since 7 has no divisors", "Yes."),
    ("B", "(B) Jupiter"),
    ("B) Jupiter", "The answer is B."),
    (
        "The len function returns the number of items in an object.",
        "In Python the len function returns the number of items in a container object.",
    ),
]
OTHER = [
    ("72", "The total is 73 clips."),
    ("3", "-3"),
    ("3.5", "35"),
    ("12 apples", "12 pears"),
    ("5cm", "5 m"),
    ("1.2.3", "1.2.4"),
    ("(3,4)", "(5,4)"),
    ("Paris", "Lyon"),
    ("Austria", "Australia"),
    ("Red Sea", "Black Sea"),
    ("Yes, the number is prime", "No, the number is prime"),
    ("A) Mars", "B) Mars"),
    ("It is safe to eat raw", "It is not safe to eat raw"),
    ("The red light means stop right there", "The red light doesn’t mean stop right there"),
    (
        "The tower was built in 1889 for the great fair by the engineer Eiffel",
        "The tower was built in 1899 for the great fair by the engineer Eiffel",
    ),
    (
        "The len function returns the number of items in an object.",
        "A range is an immutable sequence that is often used in for loops.",
    ),
    ("", "Paris"),
]


class TestSameAnswer:
    @pytest.mark.parametrize(("left", "right"), SAME)
    def test_says_the_same(self, left: str, right: str) -> None:
        assert same_answer(left, right)

    @pytest.mark.parametrize(("left", "right"), OTHER)
    def test_says_something_else(self, left: str, right: str) -> None:
        assert not same_answer(left, right)

    @CHEAP
    @given(TEXTS, TEXTS)
    def test_goes_both_ways(self, left: str, right: str) -> None:
        assert same_answer(left, right) == same_answer(right, left)

    @CHEAP
    @given(TEXTS)
    def test_every_text_agrees_with_itself(self, text: str) -> None:
        assert same_answer(text, text)


class TestClusters:
    def test_the_largest_comes_first_and_of_equals_the_earlier(self) -> None:
        assert clusters(["7", "It is 8.", "9", "8", "8 apples"]) == [[1, 3, 4], [0], [2]]
        assert clusters(["Rome", "Paris"]) == [[0], [1]]
        assert clusters([]) == []

    def test_no_chain_joins_what_differs(self) -> None:
        # the long text has both words, the short ones do not agree
        (first, second) = clusters(["Rome", "Rome or Paris", "Paris"])
        assert (first, second) == ([0, 1], [2])

    @CHEAP
    @given(st.lists(TEXTS, max_size=6))
    def test_every_text_is_in_one(self, texts: list[str]) -> None:
        found = clusters(texts)
        assert sorted(i for group in found for i in group) == list(range(len(texts)))
        assert all(same_answer(texts[i], texts[j]) for g in found for i in g for j in g)


def test_nearest_is_the_one_in_the_middle() -> None:
    assert nearest(["It is Rome, of course, my friend", "It is Rome", "It is Rome."]) in (1, 2)
    assert nearest(["a", "a", "b"]) == 0
