"""What counts as one answer, and how the scores of one answer's texts are put together."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.awareness.merging import Scored, answer_key, final_number, merge, relative
from quickstudy.types import Request

CHEAP = settings(deadline=None, max_examples=200)
TOOLS = Request.parse(
    "x",
    [
        {
            "name": "dim",
            "parameters": {
                "type": "object",
                "properties": {"room": {"type": "string"}, "level": {"type": "integer"}},
            },
        }
    ],
).tools
LOG = math.log


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ('[{"name": "dim", "arguments": {"room": "a", "level": 5}}]',
         '```json\n{"name": "dim", "arguments": {"level": "5", "room": "a"}}\n```'),
        ("Paris", " paris.\n"),
        ("The  Hague", "the hague!"),
        ("The total is $1,200.", "So we get **1200.00**"),
        ("It is 0.5", "= .5".replace("= .5", "x = 0.50")),
        ("-3", "the answer: −3."),
        ("0", "-0.0"),
    ],
)  # fmt: skip
def test_the_same_answer(left: str, right: str) -> None:
    assert answer_key(left, TOOLS) == answer_key(right, TOOLS)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ('[{"name": "dim", "arguments": {"level": 5}}]',
         '[{"name": "dim", "arguments": {"level": 6}}]'),
        ("Paris", "Rome"),
        ("3", "-3"),
        ("3.5", "35"),
        ("12 apples", "12 pears"),
        ("1.2.3", "7.2.3"),
    ],
)  # fmt: skip
def test_another_answer(left: str, right: str) -> None:
    assert answer_key(left, TOOLS) != answer_key(right, TOOLS)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("5 + 7 = 12", "12"),
        (r"so \boxed{1,234.50}.", "1234.5"),
        ("#### 007", "7"),
        ("minus -$3.", "-3"),
        ("a 20%", "20"),
        ("12 apples", None),
        ("", None),
        ("version 1.2.3", None),
        ("12,34", None),
        ("1" * 100, None),
    ],
)
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


class TestMerge:
    ANSWERS = (
        Scored("Paris", LOG(0.3), 2),
        Scored("Rome", LOG(0.4), 1),
        Scored("paris.", LOG(0.1), 4),
        Scored("Paris", LOG(0.3), 2),  # drawn twice
    )

    def test_sums_are_probabilities_and_add_up(self) -> None:
        paris, rome = merge(self.ANSWERS, (), "sum")
        assert (paris.text, rome.text) == ("Paris", "Rome")
        assert math.exp(paris.log_prob) == pytest.approx(0.4)
        assert rome.log_prob == LOG(0.4)
        assert relative(self.ANSWERS, (), "sum").value == pytest.approx(0)

    def test_means_are_not_and_the_best_text_speaks(self) -> None:
        paris, rome = merge(self.ANSWERS, (), "mean")
        assert paris.log_prob == max(LOG(0.3) / 2, LOG(0.1) / 4)
        assert rome.log_prob == LOG(0.4)
        a, b = math.exp(paris.log_prob), math.exp(rome.log_prob)
        assert relative(self.ANSWERS, (), "mean").value == pytest.approx(abs(a - b) / (a + b))

    def test_impossible_texts(self) -> None:
        answers = [Scored("a", -math.inf, 1), Scored("A", -math.inf, 1), Scored("b", -1.0, 0)]
        assert [c.log_prob for c in merge(answers, (), "sum")] == [-math.inf, -1.0]
        assert merge(answers, (), "mean")[1].log_prob == -1.0


@CHEAP
@given(st.text() | st.from_regex(r"[-$ ,.\d]{0,30}") | st.recursive(
    st.none() | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "arguments", "x"]), inner),
).map(json.dumps))  # fmt: skip
def test_any_text_is_the_same_answer_as_itself(text: str) -> None:
    key = answer_key(text, TOOLS)
    assert answer_key(f"  {text}\n", TOOLS) == key
    assert len(merge([Scored(text, -1.0, 1), Scored(f"{text} ", -1.0, 1)], TOOLS, "sum")) == 1
