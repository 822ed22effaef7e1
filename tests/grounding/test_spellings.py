"""A choice of an enum, said in other letters."""

from __future__ import annotations

import random

import pytest

from quickstudy.grounding.spellings import Choices, spaced

STATES = Choices(["open", "in_progress", "wontFix", "ON-HOLD"])


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("mark it in progress", "in_progress"),
        ("In Progress", "in_progress"),
        ("it is wont fix", "wontFix"),
        ("put on hold", "ON-HOLD"),
        ("OPEN", "open"),
    ],
)
def test_found_in_any_letters(text: str, member: str) -> None:
    (phrase,) = STATES.find(text)
    assert phrase.meaning == member
    assert STATES.says(member, "member", phrase)


@pytest.mark.parametrize("text", ["opened", "progress in work", "reopen"])
def test_words_are_not_cut(text: str) -> None:
    assert STATES.find(text) == []


def test_members_of_the_same_words_cannot_be_told_apart() -> None:
    assert Choices(["Low", "LOW", "high"]).find("low or high")[0].meaning == "high"


def test_the_longer_choice_is_meant() -> None:
    assert [p.meaning for p in Choices(["high", "very_high"]).find("very high")] == ["very_high"]


@pytest.mark.parametrize(
    ("like", "case"), [("in progress", str.islower), ("IN PROGRESS", str.isupper)]
)
def test_a_fresh_one_is_said_in_the_same_letters(like: str, case: object) -> None:
    (phrase,) = STATES.find(like)
    for seed in range(10):
        made = STATES.fresh(phrase, random.Random(seed))
        assert made is not None
        assert made.meaning in ("open", "wontFix", "ON-HOLD")
        assert callable(case)
        assert case(made.surface)


def test_only_one_choice_has_no_other() -> None:
    only = Choices(["on"])
    assert only.fresh(only.find("on")[0], random.Random(0)) is None


def test_the_words_of_identifiers() -> None:
    assert [spaced(t) for t in ("in_progress", "wontFix", "ON-HOLD", "a b")] == [
        "in progress", "wont Fix", "ON HOLD", "a b"
    ]  # fmt: skip
