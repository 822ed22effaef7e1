"""Practice that was made elsewhere, in the cycle."""

from __future__ import annotations

from dataclasses import replace

import pytest
from taught import LIGHT, QUICK, openai_tool, taught

from quickstudy.augmentation.synthesis import Synthesis
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Draft
from quickstudy.improve import Given, Improver
from quickstudy.types import Example, Message, Reply, Request, ToolCall

EXAMPLE = Example((Message("user", "Torch to 77"),), (ToolCall("set_light", {"level": 77}),), "us")


@pytest.fixture(scope="module")
def improver() -> Improver:
    return Improver(taught(), Config.load(overrides=QUICK))


@pytest.fixture(scope="module")
def drafts(improver: Improver) -> list[Draft]:
    tool = openai_tool(LIGHT)
    return improver.draft_many([Request.parse(f"{lamp} to 40", [tool]) for lamp in ("A", "B", "C")])


def test_every_draft_has_its_own(improver: Improver, drafts: list[Draft]) -> None:
    asked = []

    def source(draft: Draft, deadline: Deadline) -> Given:
        asked.append(draft)
        number = len(asked)
        if number == 2:
            return Given(Synthesis(notes=["tried"]), 2.0, "nothing to tell")
        if number == 3:
            raise RuntimeError("out of luck")
        return Given(Synthesis([EXAMPLE]), 42.0)

    first, second, third = (answer.episode for answer in improver.improve_many(drafts, source))
    assert asked == drafts
    assert first.practised
    assert first.examples == (EXAMPLE,)
    assert (first.seconds["synthesis"], second.seconds["synthesis"]) == (42.0, 2.0)
    assert (second.practised, second.fallback, second.notes) == (
        False,
        "nothing to tell",
        ("tried",),
    )
    assert third.fallback == "synthesis failed: RuntimeError: out of luck"


def test_what_is_given_is_never_changed(improver: Improver, drafts: list[Draft]) -> None:
    """What the model knows is taken out of the case's examples alone."""
    foreign = Example((Message("system", "Another."), *EXAMPLE.messages), EXAMPLE.tool_calls, "us")
    given = Given(Synthesis([EXAMPLE, foreign]))
    told = improver.improve(drafts[0], lambda draft, deadline: given).episode
    assert told.examples == (EXAMPLE,)
    assert [rejected.example for rejected in told.rejected] == [foreign]
    assert given.made.examples == [EXAMPLE, foreign]
    assert given.made.rejected == []


def test_a_sure_draft_asks_for_none(improver: Improver, drafts: list[Draft]) -> None:
    def source(draft: Draft, deadline: Deadline) -> Given:
        raise AssertionError("nobody is unsure")

    sure = Improver(improver.model, Config.load(overrides=[*QUICK, "awareness.threshold=0"]))
    assert sure.improve(drafts[0], source).episode.fallback is None


def test_a_draft_in_words_practises_calls(improver: Improver, drafts: list[Draft]) -> None:
    """In the call format that the model would open."""
    (call,) = drafts[0].reply.tool_calls
    silent = replace(drafts[0], reply=Reply("No."), call_format=None)
    answer = improver.improve(silent, lambda draft, _: Given(Synthesis([EXAMPLE])))
    assert answer.episode.fallback is None
    assert answer.episode.practised
    assert [made.name for made in answer.tool_calls] == [call.name]
    assert answer.episode.draft.tool_calls == ()
