"""Practice that was made elsewhere, in the cycle."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from taught import LIGHT, QUICK, openai_tool, taught

from quickstudy.augmentation.synthesis import Synthesis
from quickstudy.awareness import reconsider
from quickstudy.awareness.reconsider import ranked
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Draft, Generation
from quickstudy.errors import PracticeFailed
from quickstudy.improve import Case, Given, Improver, _accepted
from quickstudy.teaching.teacher import LocalTeacher
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


class TestSecondDraft:
    """Before practice an uncertain name is weighed against the other tools'."""

    @pytest.fixture
    def draft(self, improver: Improver) -> Draft:
        """A call of a tool that is not listed, so that it always gives way."""
        tool = openai_tool(LIGHT)
        request = Request.parse("A to 40", [tool, {**tool, "name": "set_beam"}])
        reply = Reply("", (ToolCall("set_lamp", {"level": 40}),))
        return replace(improver.draft(request), reply=reply, call_format="json")

    def test_is_what_is_practised_and_stands_if_that_fails(
        self, improver: Improver, draft: Draft
    ) -> None:
        best = ranked(improver.decoder, draft, Deadline())[0][0].name
        given: list[Draft] = []

        def source(second: Draft, deadline: Deadline) -> Given:
            given.append(second)
            return Given(Synthesis(notes=["tried"]), 0.0, "nothing to tell")

        answer = improver.improve(draft, source)
        assert [call.name for call in given[0].reply.tool_calls] == [best]
        assert answer.tool_calls == given[0].reply.tool_calls
        episode = answer.episode
        assert (episode.practised, episode.fallback) == (False, "nothing to tell")
        assert episode.draft == draft.reply
        assert episode.notes == (f"{best} fits better than set_lamp", "tried")

    def test_says_what_it_leaves_out(self, draft: Draft) -> None:
        calls = [ToolCall("set_lamp", {"level": 40, "colour": "red"}), *draft.reply.tool_calls]
        first, second = (replace(draft, reply=Reply("", (call,))) for call in calls)
        case = Case(first, Deadline())
        case.give_way(second)
        assert case.notes == ["set_lamp without colour: guessed, and stated by nobody"]
        assert (case.standby, case.drafted) == (second.reply, first.reply)

    @pytest.mark.parametrize("setting", ["awareness.reconsider=false", "method=tt-d"])
    def test_is_not_made_where_it_is_off_or_a_teacher_knows(
        self, improver: Improver, draft: Draft, setting: str
    ) -> None:
        config = Config.load(overrides=[*QUICK, setting])
        teacher = (
            LocalTeacher(improver.decoder, config.decoding) if setting == "method=tt-d" else None
        )
        told = Improver(improver.model, config, teacher).reconsider(draft, Deadline())
        assert told is draft

    @pytest.mark.parametrize("tried", [1, 0])
    def test_words_that_give_way_to_a_call_do_so_if_practice_fails_too(
        self, improver: Improver, draft: Draft, monkeypatch: pytest.MonkeyPatch, tried: int
    ) -> None:
        monkeypatch.setattr(reconsider, "FITS", -math.inf)
        monkeypatch.setattr(reconsider, "TRIED", tried)
        silent = replace(draft, reply=Reply("No."), call_format=None)
        best = ranked(improver.decoder, silent, Deadline())[0][0].name
        failed = improver.improve(silent, lambda *_: Given(Synthesis(), 0.0, "nothing"))
        assert failed.content == ("" if tried else "No.")
        assert [call.name for call in failed.tool_calls] == [best] * tried
        assert list(failed.episode.notes) == [f"{best} fits better than words"] * tried
        practised = improver.improve(silent)
        if not tried:
            assert practised.episode.fallback == (
                "the draft calls no tool, so there is no call to practise"
            )
        assert practised.episode.draft == silent.reply

    @pytest.mark.parametrize(
        ("example", "other"),
        [("set_lamp", True), ("set_light", False), ("unlisted", False)],
        ids=["own", "both", "foreign"],
    )
    def test_the_practised_answer_calls_what_was_practised(
        self, improver: Improver, example: str, other: bool
    ) -> None:
        """Not the first draft's tool again; of practice for another request nothing follows."""
        listed = [openai_tool(LIGHT), {**openai_tool(LIGHT), "name": "set_lamp"}]
        request = Request.parse("A to 40", listed)
        reply = Reply("", (ToolCall("set_lamp", {"level": 40}),))
        case = Case(replace(improver.draft(request), reply=reply), Deadline())
        case.take(Given(Synthesis([replace(EXAMPLE, tool_calls=(ToolCall(example, {}),))])))
        said = Generation((), '[{"name": "set_light", "arguments": {"level": 40}}]', (), True)
        if other:
            with pytest.raises(PracticeFailed, match="calls set_light, which was not practised"):
                _accepted(said, case)
        else:
            assert [call.name for call in _accepted(said, case).tool_calls] == ["set_light"]

    def test_a_question_is_the_answer_and_nothing_is_practised(self, improver: Improver) -> None:
        code = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
        request = Request.parse("Open the safe.", [{"name": "open_safe", "parameters": code}])
        reply = Reply("", (ToolCall("open_safe", {"code": "your_code"}),))
        answer = improver.improve(replace(improver.draft(request), reply=reply, call_format="json"))
        assert answer.tool_calls == ()
        assert answer.content == "To call open_safe I still need: code."
        episode = answer.episode
        assert (episode.practised, episode.draft, episode.examples) == (False, reply, ())
        assert episode.fallback == "nobody has stated what a call requires, so that is asked for"
        assert episode.notes == ("asks instead of calling open_safe",)
        assert "practice" not in episode.seconds

    def test_spent_time_leaves_the_draft(self, improver: Improver, draft: Draft) -> None:
        config = Config.load(overrides=[*QUICK, "budget_seconds=0.001"])
        answer = Improver(improver.model, config).improve(draft)
        assert answer.tool_calls == draft.reply.tool_calls
        assert answer.episode.fallback == "the time budget is spent"
        assert answer.episode.seconds["awareness"] > 0
