"""The tool that a request is about, read from both sides, against plain sums of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from quickstudy import toolcalls
from quickstudy.awareness import reconsider
from quickstudy.awareness.kinds import choice_span
from quickstudy.awareness.names import name_log_probs
from quickstudy.awareness.reconsider import (
    fit,
    name_margin,
    need_log_probs,
    ranked,
    second_draft,
    speaking,
)
from quickstudy.config import Config, DecodingConfig
from quickstudy.decoding import Choice, Deadline, Decoder, Draft, Generation
from quickstudy.errors import BudgetSpent
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.prompts import dialogue
from quickstudy.types import Message, Reply, Request, Tool, ToolCall


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "parameters": parameters}


BRIEF = Config(method="base", decoding=DecodingConfig(max_new_tokens=1))
COLOURS = {"enum": ["red", "blue"]}
TOOLS = [
    tool("dim_lights", "Make a room darker", room=COLOURS),
    tool("lock", "Lock a door"),
    tool("play_song", "Plays a song.", song=COLOURS),
]


def drafted(
    model: LanguageModel, calls: Sequence[ToolCall], tools: list[Any] = TOOLS, margin: float = 0.5
) -> Draft:
    """A draft of these calls in place of the model's own, uncertain of every token or of none."""
    improver = Improver(model, BRIEF)
    draft = improver.draft(Request.parse("It is too bright in the blue room.", tools))
    ids = tuple(model.encode(toolcalls.write(calls, "json", draft.context.request.tools)))
    rival = math.log(0.5 - margin / 2)
    choices = tuple(Choice(i, t, math.log(0.5 + margin / 2), 0, rival) for i, t in enumerate(ids))
    generation = Generation(ids, model.decode(ids), choices, True)
    reply, call_format = Reply("", tuple(calls)), "json" if calls else None
    return replace(draft, generation=generation, reply=reply, call_format=call_format)


def likeliest(decoder: Decoder, draft: Draft, deadline: Deadline) -> Tool:
    return ranked(decoder, draft, deadline)[0][0]


def asking(draft: Draft, *messages: Message, **more: Any) -> Draft:
    """The draft as if it answered these messages."""
    request = replace(draft.context.request, messages=messages, **more)
    return replace(draft, context=replace(draft.context, request=request))


def only(text: str) -> dict[str, Any]:
    """The schema of this one text; no enum, for what is chosen among few may be meant."""
    return {"type": "string", "description": "Say it.", "pattern": f"^{text}$"}


def alone(model: LanguageModel, tool: Tool, said: str, takes: str) -> float:
    """log P(said | need of the tool), from one pass over the whole prompt."""
    described = f"{tool.description.rstrip('.')}." if tool.description else ""
    asked = dialogue("need", name=tool.name, description=described, takes=takes)
    prompt, answer = model.render(asked, ()), model.encode(said)
    with torch.no_grad():
        logits = model.network(torch.tensor([[*prompt, *answer]])).logits[0].float()
    told = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return float(told[range(len(answer)), answer].sum())


class TestNeed:
    def test_is_the_likelihood_of_the_request_under_each_tool(self, tiny: LanguageModel) -> None:
        tools = [Tool.parse(one) for one in TOOLS]
        told = need_log_probs(Decoder(tiny), "Too bright!", tools)
        wanted = [
            alone(tiny, one, "Too bright!", takes)
            for one, takes in zip(tools, ("room", "nothing", "song"), strict=True)
        ]
        assert told == pytest.approx(wanted, abs=1e-3)
        assert len(set(told)) == 3

    def test_of_a_long_request_the_end_is_read(self, tiny: LanguageModel) -> None:
        tools = [Tool.parse(one) for one in TOOLS]
        end = "e" * reconsider.READ
        assert need_log_probs(Decoder(tiny), "a" * 5000 + end, tools) == need_log_probs(
            Decoder(tiny), end, tools
        )


class TestRanked:
    def test_sums_both_sides(self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
        """Over requests and weights for which neither side alone decides as the sum does."""
        decoder, improver = Decoder(tiny), Improver(tiny, BRIEF)
        tools = [tool("ab", "Dims"), tool("ba", "Locks the door"), tool("bb", "Plays a song")]
        against = {"opened": 0, "needed": 0}
        for said in (f"{letter} x{letter * 3}" for letter in "abcdefghijkl"):
            draft = replace(improver.draft(Request.parse(said, tools)), call_format="json")
            request, turn = draft.context.request, list(draft.context.turn)
            names = [one.name for one in request.tools]
            opened = name_log_probs(decoder, draft.context, turn, names, "json")
            needed = need_log_probs(decoder, said, request.tools)
            for weight, rows in ((0.3, 16), (30.0, 2)):
                monkeypatch.setattr(reconsider, "ROWS", rows)
                monkeypatch.setattr(reconsider, "WEIGHT", weight)
                sums = [a + weight * b for a, b in zip(opened, needed, strict=True)]
                best = sums.index(max(sums))
                told = ranked(decoder, draft, Deadline())
                assert told[0][0].name == names[best]
                wanted = dict(zip(names, sums, strict=True))
                assert [score for _, score in told] == sorted(wanted.values(), reverse=True)
                assert {one.name: score for one, score in told} == pytest.approx(wanted)
                against["opened"] += opened.index(max(opened)) != best
                against["needed"] += needed.index(max(needed)) != best
        assert all(against.values()), against

    def test_weighs_the_tools_that_would_be_opened_most_likely(
        self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draft, decoder = drafted(tiny, [ToolCall("lock", {})]), Decoder(tiny)
        names = [one.name for one in draft.context.request.tools]
        opened = name_log_probs(decoder, draft.context, list(draft.context.turn), names, "json")
        monkeypatch.setattr(reconsider, "MOST", 1)
        assert likeliest(decoder, draft, Deadline()).name == names[opened.index(max(opened))]


class TestSpeaking:
    def test_takes_the_format_that_the_model_would_open(self, tiny: LanguageModel) -> None:
        decoder, draft = Decoder(tiny), drafted(tiny, [])
        context, formats = draft.context, tiny.call_formats
        scores = [
            name_log_probs(decoder, context, list(context.turn), [TOOLS[0]["name"]], how)[0]
            for how in formats
        ]
        assert speaking(decoder, draft).call_format == formats[scores.index(max(scores))]

    def test_leaves_drafts_that_call_and_plain_questions(self, tiny: LanguageModel) -> None:
        for draft in (drafted(tiny, [ToolCall("lock", {})]), drafted(tiny, [], [])):
            assert speaking(Decoder(tiny), draft) is draft


class TestSecondDraft:
    def test_another_tool_that_fits_better_is_called(self, tiny: LanguageModel) -> None:
        decoder = Decoder(tiny)
        best = likeliest(decoder, drafted(tiny, [ToolCall("lock", {})]), Deadline())
        for name in ("dim_lights", "lock", "play_song", "not_listed"):
            own = ToolCall(name, {})
            draft = drafted(tiny, [own])
            second = second_draft(decoder, draft, 64, Deadline())
            calls = second.reply.tool_calls
            if name == best.name:
                assert second is draft
            else:
                assert [call.name for call in calls] == [best.name]
                assert toolcalls.problem(calls[0], draft.context.request.tools) is None
                listed = draft.context.request.tools
                assert toolcalls.read(second.generation.text, listed)[0] == second.reply
                assert second.call_format == draft.call_format

    def test_gives_way_to_no_call_that_must_invent_more(self, tiny: LanguageModel) -> None:
        """Of near tools that take the room or a key nobody has told, the draft takes the room."""
        decoder = Decoder(tiny)
        room, seen = {"type": "string", "pattern": "^blue room$"}, set[bool]()
        for own, other in (("aa", "ab"), ("ab", "aa")):
            stated = [tool(own, room=room), tool(other, room=room)]
            invents = [
                tool(own, room=room),
                tool(other, key={"type": "string", "pattern": "^your_key_here$"}),
            ]
            call = ToolCall(own, {"room": "blue room"})
            for tools, gives_way in ((stated, True), (invents, False)):
                draft = drafted(tiny, [call], tools)
                if likeliest(decoder, draft, Deadline()).name == other:
                    second = second_draft(decoder, draft, 64, Deadline())
                    assert (second is not draft) == gives_way
                    seen.add(gives_way)
        assert seen == {True, False}

    def test_a_draft_that_is_sure_of_a_listed_name_stays(self, tiny: LanguageModel) -> None:
        decoder = Decoder(tiny)
        best = likeliest(decoder, drafted(tiny, [ToolCall("lock", {})]), Deadline())
        own = next(one["name"] for one in TOOLS if one["name"] != best.name)
        for name, sure, stays in ((own, 0.9, True), (own, 0.7, False), ("not_listed", 0.9, False)):
            draft = drafted(tiny, [ToolCall(name, {})], margin=sure)
            assert name_margin(decoder, draft) == pytest.approx(sure)
            called = [c.name for c in second_draft(decoder, draft, 64, Deadline()).reply.tool_calls]
            assert called == [name if stays else best.name]

    def test_the_least_certain_token_of_the_name_counts_and_no_other(
        self, tiny: LanguageModel
    ) -> None:
        draft = drafted(tiny, [ToolCall("lock", {})], margin=0.9)
        choices = list(draft.generation.choices)
        place = draft.generation.text.index("lock") + 1  # a token a byte
        for index in (2, place):  # in `[{"name"`, and in the name
            choices[index] = replace(choices[index], log_prob=math.log(0.6), rival=math.log(0.4))
            generation = replace(draft.generation, choices=tuple(choices))
            told = name_margin(Decoder(tiny), replace(draft, generation=generation))
            assert told == pytest.approx(0.2 if index == place else 0.9)

    @pytest.mark.parametrize("calls", [[], [ToolCall("not_listed", {})]])
    @pytest.mark.parametrize(
        "messages", [(Message("user", "Do it."), Message("tool", "Done.")), (Message("user", " "),)]
    )
    def test_after_a_result_and_without_words_all_drafts_stay(
        self, tiny: LanguageModel, calls: list[ToolCall], messages: tuple[Message, ...]
    ) -> None:
        draft = asking(drafted(tiny, calls), *messages)
        assert second_draft(Decoder(tiny), draft, 64, Deadline()) is draft

    def test_gives_up_when_the_time_is_spent(self, tiny: LanguageModel) -> None:
        draft = drafted(tiny, [ToolCall("not_listed", {})])
        with pytest.raises(BudgetSpent):
            second_draft(Decoder(tiny), draft, 64, Deadline(0.0))

    def test_several_calls_and_the_only_tool_stay(self, tiny: LanguageModel) -> None:
        lock = ToolCall("lock", {})
        for calls, tools in (((lock, lock), TOOLS), ((lock,), TOOLS[1:2]), ((), [])):
            draft = drafted(tiny, calls, tools)
            assert second_draft(Decoder(tiny), draft, 64, Deadline()) is draft

    def test_a_call_that_is_cut_off_is_none(self, tiny: LanguageModel) -> None:
        tools = [tool(name, text={"type": "string", "minLength": 50}) for name in "ab"]
        draft = drafted(tiny, [ToolCall("not_listed", {})], tools)
        assert second_draft(Decoder(tiny), draft, 9, Deadline()) is draft

    @pytest.mark.parametrize(("least", "gives_way"), [(10, False), (300, True)])
    def test_a_call_much_longer_than_the_draft_is_none(
        self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, least: int, gives_way: bool
    ) -> None:
        tools = [tool(name, text={"type": "string", "pattern": "^[ab]{150}$"}) for name in "ab"]
        draft = drafted(tiny, [ToolCall("not_listed", {})], tools)
        monkeypatch.setattr(reconsider, "LEAST", least)
        second = second_draft(Decoder(tiny), draft, 500, Deadline())
        assert (second is not draft) == gives_way

    def test_a_tool_that_makes_no_grammar_leaves_the_draft(self, tiny: LanguageModel) -> None:
        odd = {"type": "string", "pattern": "(?=a)b"}
        tools = [tool("a", x=odd), tool("b", x=odd)]
        draft = drafted(tiny, [ToolCall("c", {})], tools)
        assert second_draft(Decoder(tiny), draft, 64, Deadline()) is draft


class TestWords:
    """A draft in words gives way to a call that finds all it requires in what was said."""

    ASKED = Message("user", "It is too bright in the blue room.")
    DIM: ClassVar[dict[str, Any]] = tool("dim", room=only("blue room"))

    @pytest.fixture
    def decoder(self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Decoder:
        monkeypatch.setattr(reconsider, "FITS", math.inf)
        return Decoder(tiny)

    @pytest.mark.parametrize(
        ("text", "messages", "called"),
        [
            ("blue room", (ASKED,), True),
            ("blue room", (ASKED, Message("assistant", "Let me see.")), True),
            ("your_key_here", (ASKED,), False),  # nobody said so
            ("blue room", (ASKED, Message("assistant", "Done."), Message("user", "Great!")), False),
        ],
    )
    def test_to_a_call_of_what_the_user_said_last(
        self, decoder: Decoder, text: str, messages: tuple[Message, ...], called: bool
    ) -> None:
        draft = asking(drafted(decoder.model, [], [tool("dim", room=only(text))]), *messages)
        second = second_draft(decoder, draft, 64, Deadline())
        wanted = (ToolCall("dim", {"room": text}),) if called else ()
        assert second.reply.tool_calls == wanted
        assert (second is not draft) == called

    @pytest.mark.parametrize(
        "said",
        ["Do not dim the blue room!", "Don’t touch the blue room", "What if I dim the blue room?"],
    )
    def test_to_none_that_the_user_does_not_want(self, decoder: Decoder, said: str) -> None:
        draft = asking(drafted(decoder.model, [], [self.DIM]), Message("user", said))
        assert second_draft(decoder, draft, 64, Deadline()) is draft

    def test_figures_must_have_been_said(self, decoder: Decoder) -> None:
        level = {"type": "integer", "minimum": 17, "maximum": 17}
        both = tool("dim", room=only("blue room"), level=level)
        for said, called in (("17 in the blue room", True), ("300 in the blue room", False)):
            draft = asking(drafted(decoder.model, [], [both]), Message("user", said))
            assert bool(second_draft(decoder, draft, 64, Deadline()).reply.tool_calls) == called

    def test_the_rest_may_have_been_said_by_anybody_before(self, decoder: Decoder) -> None:
        both = tool("dim", room=only("blue room"), token=only("tk9f"))
        before = Message("assistant", "", (ToolCall("log_in", {"token": "tk9f"}),))
        for messages, called in (((before, self.ASKED), True), ((self.ASKED,), False)):
            draft = asking(drafted(decoder.model, [], [both]), *messages)
            assert bool(second_draft(decoder, draft, 64, Deadline()).reply.tool_calls) == called

    def test_to_none_that_was_made_before(self, decoder: Decoder) -> None:
        made = Message("assistant", "", (ToolCall("dim", {"room": "blue room"}),))
        again = Message("user", "So the blue room is dark now?")
        draft = asking(drafted(decoder.model, [], [self.DIM]), self.ASKED, made, again)
        assert second_draft(decoder, draft, 64, Deadline()) is draft

    @pytest.mark.parametrize("near", [math.inf, 0.0])
    def test_the_next_tool_is_tried_if_it_is_near(
        self, decoder: Decoder, monkeypatch: pytest.MonkeyPatch, near: float
    ) -> None:
        monkeypatch.setattr(reconsider, "NEAR", near)
        schemas, seen = {"aa": only("blue room"), "ab": only("your_key_here")}, set[str]()
        for names in (("aa", "ab"), ("ab", "aa")):
            fits, misses = names
            tools = [tool(fits, x=schemas["aa"]), tool(misses, x=schemas["ab"])]
            draft = drafted(decoder.model, [], tools)
            first = likeliest(decoder, draft, Deadline()).name
            calls = second_draft(decoder, draft, 64, Deadline()).reply.tool_calls
            expected = [fits] if first == fits or near else []
            assert [call.name for call in calls] == expected
            seen.add("fits" if first == fits else "misses")
        assert "misses" in seen

    @pytest.mark.parametrize(("short_of", "called"), [(1e-3, True), (-1e-3, False)])
    def test_or_to_one_without_values_that_fits_well(
        self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, short_of: float, called: bool
    ) -> None:
        decoder, draft = Decoder(tiny), drafted(tiny, [], [tool("lock", "Lock a door"), tool("go")])
        best, said = likeliest(decoder, draft, Deadline()), draft.context.request.user_text
        monkeypatch.setattr(reconsider, "TRIED", 1)
        monkeypatch.setattr(reconsider, "FITS", fit(decoder, said, best) - short_of)
        second = second_draft(decoder, draft, 64, Deadline())
        assert [call.name for call in second.reply.tool_calls] == [best.name] * called


def unsure_of(model: LanguageModel, draft: Draft, *values: str) -> Draft:
    """The draft, sure of all but the last time that it says each of these values."""
    text = draft.generation.text
    places = [range(at, at + len(v)) for v in values for at in [text.rindex(v)]]
    unsure, sure = math.log(0.6), math.log(0.95)
    near, far = math.log(0.4), math.log(0.05)
    choices = []
    for choice in draft.generation.choices:
        begin, end = choice_span(model.decode, draft.generation, choice)
        meant = any(begin < place.stop and end > place.start for place in places)
        log_prob, rival = (unsure, near) if meant else (sure, far)
        choices.append(replace(choice, log_prob=log_prob, rival=rival))
    return replace(draft, generation=replace(draft.generation, choices=tuple(choices)))


class TestGuesses:
    """An optional value that nothing speaks for and the model is not sure of is left out."""

    TOOL: ClassVar[dict[str, Any]] = {
        "name": "scan_network",
        "parameters": {
            "type": "object",
            "properties": {
                "network": {"type": "string"},
                "report": {"type": "string", "description": "Such as PDF."},
                "deep": {"type": "boolean"},
                "bright_mode": {"type": "boolean"},
                "minutes": {"type": "integer"},
                "name": {"type": "string"},
                "mode": COLOURS,
            },
            "required": ["network"],
        },
    }

    def left_out(self, model: LanguageModel, draft: Draft, *messages: Message) -> set[str]:
        draft = asking(draft, *messages) if messages else draft
        second = second_draft(Decoder(model), draft, 64, Deadline())
        (call,), (kept,) = draft.reply.tool_calls, second.reply.tool_calls
        assert kept.arguments.items() <= call.arguments.items()
        return call.arguments.keys() - kept.arguments.keys()

    def draft(self, model: LanguageModel, margin: float = 0.4, **guess: Any) -> Draft:
        return drafted(
            model, [ToolCall("scan_network", {"network": "blue", **guess})], [self.TOOL], margin
        )

    @pytest.mark.parametrize(
        "guess", [{"report": "PDF"}, {"deep": True}, {"report": "zebra"}, {"deep": False}]
    )
    def test_by_margin(self, tiny: LanguageModel, guess: dict[str, Any]) -> None:
        assert self.left_out(tiny, self.draft(tiny, **guess)) == guess.keys()
        assert not self.left_out(tiny, self.draft(tiny, 0.6, **guess))

    @pytest.mark.parametrize(
        "guess",
        [
            {"mode": "red"},
            {"report": "brightness"},
            {"report": "BR"},
            {"bright_mode": True},
            {"report": "bright"},
        ],
        ids=["option", "akin", "code", "named", "stated"],
    )
    def test_what_something_speaks_for_stays(
        self, tiny: LanguageModel, guess: dict[str, Any]
    ) -> None:
        assert not self.left_out(tiny, self.draft(tiny, **guess))

    def test_by_the_margin_of_that_value_alone(self, tiny: LanguageModel) -> None:
        draft = self.draft(tiny, name="zebra", deep=True, report="zebra")
        assert self.left_out(tiny, unsure_of(tiny, draft, "zebra")) == {"report"}
        assert self.left_out(tiny, unsure_of(tiny, draft, "true")) == {"deep"}

    def test_what_another_has_said_stays(self, tiny: LanguageModel) -> None:
        told = Message("assistant", "I can make a PDF.")
        asked = Message("user", "Scan the blue one.")
        assert not self.left_out(tiny, self.draft(tiny, report="PDF"), told, asked)

    @pytest.mark.parametrize(
        "more",
        [{"required": []}, {"minProperties": 2}, {"dependentRequired": {"network": ["report"]}}],
    )
    def test_what_may_be_required_stays(self, tiny: LanguageModel, more: dict[str, Any]) -> None:
        strict = {**self.TOOL, "parameters": {**self.TOOL["parameters"], **more}}
        call = ToolCall("scan_network", {"network": "blue", "report": "PDF"})
        draft = drafted(tiny, [call], [strict], 0.4)
        assert second_draft(Decoder(tiny), draft, 64, Deadline()) is draft


class TestQuestion:
    """A call that must invent what it requires gives way to a question for it."""

    TOOLS: ClassVar[list[dict[str, Any]]] = [tool("open_safe", code=only("0000"))]
    CALL = ToolCall("open_safe", {"code": "zq_77k"})

    def test_for_what_is_missing(self, tiny: LanguageModel) -> None:
        draft = drafted(tiny, [self.CALL], self.TOOLS, margin=0.4)
        draft = replace(draft, reply=replace(draft.reply, reasoning="Hm."))
        second = second_draft(Decoder(tiny), draft, 64, Deadline())
        question = "To call open_safe I still need: code (Say it)."
        assert second.reply == Reply(question, reasoning="Hm.")

    @pytest.mark.parametrize(
        ("margin", "code", "asked"),
        [(0.4, "zq_77k", True), (0.6, "zq_77k", False), (0.9, "your_code", True)],
    )
    def test_not_for_what_the_model_infers(
        self, tiny: LanguageModel, margin: float, code: str, asked: bool
    ) -> None:
        draft = drafted(tiny, [ToolCall("open_safe", {"code": code})], self.TOOLS, margin)
        second = second_draft(Decoder(tiny), draft, 64, Deadline())
        assert (second is not draft) == asked

    def test_about_the_tool_that_the_model_is_sure_of(self, tiny: LanguageModel) -> None:
        listed = [*self.TOOLS, tool("open_door", key=only("your_key"))]
        for name, key in (("open_safe", "code"), ("open_door", "key")):
            draft = drafted(tiny, [ToolCall(name, {key: "your_key"})], listed, margin=0.9)
            second = second_draft(Decoder(tiny), draft, 64, Deadline())
            assert second.reply.content.startswith(f"To call {name} I still need: {key}")

    @pytest.mark.parametrize(
        ("messages", "more"),
        [
            ((Message("user", "It is zq_77k."),), {}),
            ((Message("user", "Open the safe."),), {"must_call": True}),
            (
                (
                    Message("user", "Open the safe."),
                    Message("assistant", "To call open_safe I still need: code."),
                    Message("user", "Any will do."),
                ),
                {},
            ),
        ],
    )
    def test_not_where_it_was_said_or_asked_or_a_call_is_wanted(
        self, tiny: LanguageModel, messages: tuple[Message, ...], more: dict[str, Any]
    ) -> None:
        draft = asking(drafted(tiny, [self.CALL], self.TOOLS, 0.4), *messages, **more)
        assert second_draft(Decoder(tiny), draft, 64, Deadline()) is draft
