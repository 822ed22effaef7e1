"""Scores to compare with, on a draft whose probabilities are known."""

from __future__ import annotations

import math

import pytest

from quickstudy.awareness import baselines
from quickstudy.decoding import Ask, Choice, Deadline, Decoder, Generation
from quickstudy.model import LanguageModel
from quickstudy.types import Request

DRAFT = Generation(
    (1, 2, 3),
    "abc",
    (
        Choice(0, 1, math.log(0.5), 9, math.log(0.25), 1.0),
        Choice(2, 3, math.log(0.8), 9, math.log(0.1), 0.2),
    ),
    True,
)
FORCED = Generation((1,), "a", (), True)


@pytest.mark.parametrize(
    ("score", "value", "forced"),
    [
        (baselines.sequence_probability, 0.4, 1),
        (baselines.inverse_perplexity, math.sqrt(0.4), 1),
        (baselines.least_probability, 0.5, 1),
        (baselines.negative_mean_entropy, -0.6, 0),
        (baselines.negative_largest_entropy, -1.0, 0),
    ],
)
def test_of_the_draft(score: object, value: float, forced: float) -> None:
    assert callable(score)
    assert score(DRAFT) == pytest.approx(value)
    assert score(FORCED) == forced


def test_self_consistency_is_the_share_that_agrees() -> None:
    assert baselines.self_consistency("It is 4.", ["4", "so 4.0", "5", "four"]) == 0.5
    assert baselines.self_consistency("x", []) == 1


def test_entropy_is_that_of_the_whole_choice(tiny: LanguageModel) -> None:
    context = tiny.prefill(Request.parse("Hi"))
    (draft,) = Decoder(tiny).decode(
        context.prefix, [Ask(context.turn)], max_new_tokens=1, deadline=Deadline()
    )
    logits, _ = tiny.forward([context.turn], context.prefix.fork(), None, keep=1)
    shares = logits[0, -1].double().softmax(-1)
    expected = -float((shares * shares.log()).sum())
    assert draft.choices[0].entropy == pytest.approx(expected, abs=1e-4)
