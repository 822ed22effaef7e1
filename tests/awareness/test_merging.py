"""What counts as one answer, and how the scores of one answer's texts are put together."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.awareness.merging import Scored, merge, relative, same
from quickstudy.types import Request

CHEAP = settings(deadline=None, max_examples=100)
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
        ("Paris", "It is paris.\n"),
        ("The total is $1,200.", "So we get **1200.00**"),
    ],
)  # fmt: skip
def test_the_same_answer(left: str, right: str) -> None:
    assert same([left, right], TOOLS) == [[0, 1]]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ('[{"name": "dim", "arguments": {"level": 5}}]',
         '[{"name": "dim", "arguments": {"level": 6}}]'),
        ('[{"name": "dim", "arguments": {"level": 5}}]', "5"),
        ("Paris", "Rome"),
        ("3", "-3"),
    ],
)  # fmt: skip
def test_another_answer(left: str, right: str) -> None:
    assert same([left, right], TOOLS) == [[0], [1]]


def test_groups_come_in_the_order_of_their_first_and_all_agree() -> None:
    call = '[{"name": "dim", "arguments": {"level": 5}}]'
    said = ["Rome", call, "It is Rome or Paris", "Paris", "paris", f"{call} "]
    assert same(said, TOOLS) == [[0, 2], [1, 5], [3, 4]]
    assert same([], TOOLS) == []


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

    def test_votes_are_how_often_an_answer_was_drawn(self) -> None:
        paris, rome = merge(self.ANSWERS, (), "votes")
        assert (paris.text, rome.text) == ("Paris", "Rome")
        assert (paris.log_prob, rome.log_prob) == (LOG(3 / 4), LOG(1 / 4))
        # the share of the first less that of the second
        assert relative(self.ANSWERS, (), "votes").value == pytest.approx(0.5)

    def test_a_third_answer_has_its_share(self) -> None:
        answers = [Scored(text, -1.0, 1) for text in ("1", "2", "1", "3", "1")]
        assert relative(answers, (), "votes").value == pytest.approx(3 / 5 - 1 / 5)

    def test_of_long_texts_only_votes_can_tell(self) -> None:
        """Sums differ by tens of nats for wording alone: the shortest text takes all the mass."""
        said = [("It is Rome.", -8.0), ("Paris, as is well known.", -31.0)]
        said += [(f"Well, number {i}: Paris it is, and has been for long.", -45.0) for i in (1, 2)]
        said.append(("Paris, which is also the largest city by far.", -52.0))
        answers = [Scored(text, log_prob, len(text.split())) for text, log_prob in said]
        assert relative(answers, (), "sum").value > 0.999
        assert relative(answers[::-1], (), "sum").value > 0.999
        assert relative(answers, (), "votes").value < 0.8

    def test_impossible_texts(self) -> None:
        answers = [Scored("a", -math.inf, 1), Scored("A", -math.inf, 1), Scored("b", -1.0, 0)]
        assert [c.log_prob for c in merge(answers, (), "sum")] == [-math.inf, -1.0]
        assert merge(answers, (), "mean")[1].log_prob == -1.0
        assert merge(answers, (), "votes")[1].log_prob == LOG(1 / 3)


@CHEAP
@given(st.text() | st.from_regex(r"[-$ ,.\d]{0,30}") | st.recursive(
    st.none() | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "arguments", "x"]), inner),
).map(json.dumps))  # fmt: skip
def test_any_text_is_the_same_answer_as_itself(text: str) -> None:
    assert same([text, f"  {text}\n", f"{text} "], TOOLS) == [[0, 1, 2]]
