"""The user's own words with other values in them; one test a rule that was learnt by harm."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from quickstudy import toolcalls
from quickstudy.augmentation.substitution import Analysis, analyse, substitute
from quickstudy.augmentation.verify import reject
from quickstudy.grounding import temporal
from quickstudy.grounding.ground import Status, ground
from quickstudy.types import Example, Request, Tool, ToolCall

CHEAP = settings(deadline=None, max_examples=150)

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
NUMBER = {"type": "number"}
DATE = {"type": "string", "description": "the day, YYYY-MM-DD"}
TIME = {"type": "string", "description": "the time, HH:MM"}
PLATFORM = {"type": "string", "description": "the platform, e.g., Facebook, Twitter, Instagram"}
NEW = ("Amber", "Basil", "Cedar", "Dill", "Elder", "Fern")


def writer(asks: Sequence[tuple[str, Tool, str]]) -> list[list[str]]:
    """Stands in for the model: the same other values for every argument."""
    return [list(NEW) for _ in asks]


def no_writer(asks: Sequence[tuple[str, Tool, str]]) -> list[list[str]]:
    raise AssertionError(f"the model was asked for {asks}")


def request(said: Any, *, required: Sequence[str] | None = (), **properties: Any) -> Request:
    """A request with one tool, `do`. `required=None`: its schema does not say what is required."""
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required is not None:
        parameters["required"] = list(required)
    return Request.parse(said, [{"name": "do", "parameters": parameters}])


def call(**arguments: Any) -> ToolCall:
    return ToolCall("do", arguments)


def practice(
    of: Request, *draft: ToolCall, count: int = 3, seed: int = 0, write: Any = writer
) -> list[Example]:
    """The examples that verification keeps."""
    analysis = analyse(of, draft)
    kept: list[Example] = []
    for made in substitute(of, analysis, count, random.Random(seed), write):
        if len(kept) < count and reject(made, of, kept, analysis.kept) is None:
            kept.append(made)
    return kept


def some(of: Request, *draft: ToolCall, **options: Any) -> list[Example]:
    made = practice(of, *draft, **options)
    assert made
    return made


def one(of: Request, *draft: ToolCall, **options: Any) -> tuple[str, Mapping[str, Any]]:
    """The first example's last turn and its first call's arguments."""
    first = practice(of, *draft, **options)[0]
    return first.messages[-1].content, first.tool_calls[0].arguments


class TestLetters:
    def test_practice_has_the_letters_of_its_request(self) -> None:
        """The draft wrote "twitter"; the lesson is to copy what stands there."""
        asked = request("Post it on Twitter", on=PLATFORM)
        for made in some(asked, call(on="twitter")):
            fresh = made.tool_calls[0].arguments["on"]
            assert fresh in {"Facebook", "Instagram", *NEW}
            assert made.user_text == f"Post it on {fresh}"

    def test_an_enum_stays_among_its_members(self) -> None:
        asked = request("Convert it to USD", to={"enum": ["USD", "EUR", "GBP"]})
        made = practice(asked, call(to="USD"), write=no_writer)
        assert {m.tool_calls[0].arguments["to"] for m in made} == {"EUR", "GBP"}
        assert {m.user_text for m in made} == {"Convert it to EUR", "Convert it to GBP"}

    def test_an_enum_at_the_start_of_a_sentence(self) -> None:
        asked = request("Cold, please", how={"enum": ["cold", "hot"]})
        assert one(asked, call(how="cold")) == ("Hot, please", {"how": "hot"})


class TestValuesWithin:
    """A text that holds other values varies with them; as a whole it would take them along."""

    SAID = "Remind me to call Ana on 2027-02-11 at 09:30."

    def test_a_text_is_kept_but_for_them(self) -> None:
        asked = request(self.SAID, text=TEXT, day=DATE, time=TIME)
        draft = call(text="Call Ana on 2027-02-11 at 09:30", day="2027-02-11", time="09:30")
        for made in some(asked, draft, write=no_writer):
            told = made.tool_calls[0].arguments
            assert told["day"] != "2027-02-11"
            assert told["time"] != "09:30"
            assert made.user_text == f"Remind me to call Ana on {told['day']} at {told['time']}."
            assert told["text"] == f"Call Ana on {told['day']} at {told['time']}"

    def test_a_name_in_it_is_another_value(self) -> None:
        asked = request("Plan dinner with Ana", title=TEXT, guest=TEXT)
        for made in some(asked, call(title="dinner with Ana", guest="Ana")):
            told = made.tool_calls[0].arguments
            assert told["guest"] in NEW
            assert told["title"] == f"dinner with {told['guest']}"

    def test_the_same_words_twice_are_one_value(self) -> None:
        asked = request("Write to Ana", to=TEXT, name=TEXT)
        for made in some(asked, call(to="Ana", name="Ana")):
            told = made.tool_calls[0].arguments
            assert told["to"] == told["name"] != "Ana"


class TestOtherValues:
    def test_differ_from_the_users_own(self) -> None:
        asked = request("Send 5 roses to Maria", number=WHOLE, to=TEXT)
        made = practice(asked, call(number=5, to="Maria"))
        assert len(made) == 3
        for example_ in made:
            arguments = example_.tool_calls[0].arguments
            assert arguments["to"] != "Maria"
            assert arguments["number"] != 5
            assert example_.user_text == f"Send {arguments['number']} roses to {arguments['to']}"

    def test_differ_from_those_of_other_examples(self) -> None:
        made = practice(request("Call Maria", who=TEXT), call(who="Maria"))
        assert len({m.tool_calls[0].arguments["who"] for m in made}) == 3

    def test_are_not_replaced_again(self) -> None:
        """Maria becomes Amber and Amber becomes someone else: not both in turn."""
        asked = request("Maria pays Amber", payer=TEXT, payee=TEXT)

        def write(asks: Sequence[Any]) -> list[list[str]]:
            names = {"Maria": ["Amber", "Zoe"], "Amber": ["Maria", "Kim"]}
            return [names[value] for _, _, value in asks]

        text, arguments = one(asked, call(payer="Maria", payee="Amber"), write=write)
        assert text == f"{arguments['payer']} pays {arguments['payee']}"
        assert set(arguments.values()) == {"Zoe", "Kim"}

    def test_may_swap_places_with_each_other(self) -> None:
        """A number's fresh value may be what another number was: each is replaced once."""
        asked = request("Put 3 and 4 in", a=WHOLE | {"maximum": 4}, b=WHOLE | {"maximum": 4})
        for seed in range(20):
            for made in some(asked, call(a=3, b=4), seed=seed):
                arguments = made.tool_calls[0].arguments
                assert made.user_text == f"Put {arguments['a']} and {arguments['b']} in"

    def test_only_what_nothing_else_can_vary_is_asked_of_the_model(self) -> None:
        asked = request("Book AB12 for 3 on Twitter", code=TEXT, number=WHOLE, on=PLATFORM)
        draft = call(code="AB12", number=3, on="Twitter")
        assert practice(asked, draft, count=2, write=no_writer)

    def test_same_seed_same_practice(self) -> None:
        asked = request("Send 5 roses on March 25th, 2023", number=WHOLE, day=DATE)
        draft = call(number=5, day="2023-03-25")
        assert practice(asked, draft, seed=7) == practice(asked, draft, seed=7)

    def test_words_are_not_cut(self) -> None:
        asked = request("Put art in the party of art, smart one", what=TEXT)
        text, arguments = one(asked, call(what="art"))
        assert text == "Put Amber in the party of Amber, smart one"
        assert arguments == {"what": "Amber"}

    @pytest.mark.parametrize(
        "rest", ["at 3:30", "for 3.5 euros", "for 4.3 euros", "or 3,100", "until 3/4/2023"]
    )
    def test_numbers_are_not_cut(self, rest: str) -> None:
        for made in some(request(f"Set 3 alarms {rest}", number=WHOLE), call(number=3)):
            number = made.tool_calls[0].arguments["number"]
            assert made.user_text == f"Set {number} alarms {rest}"


class TestNumbers:
    def test_in_words_stay_in_words(self) -> None:
        asked = request("Make it twenty-one degrees", degrees=NUMBER | {"maximum": 30})
        text, arguments = one(asked, call(degrees=21))
        assert re.fullmatch(r"Make it [a-z-]+ degrees", text)
        assert ground(arguments["degrees"], {}, text).status is Status.STATED

    def test_with_commas_keep_them(self) -> None:
        asked = request("Transfer 12,500 euros", amount=NUMBER | {"minimum": 2000})
        text, arguments = one(asked, call(amount=12500))
        assert text == f"Transfer {arguments['amount']:,} euros"
        assert "," in text

    def test_one_number_for_two_arguments(self) -> None:
        asked = request("Repeat it 4 times", times=WHOLE, again=WHOLE)
        text, arguments = one(asked, call(times=4, again=4))
        assert arguments["times"] == arguments["again"]
        assert text == f"Repeat it {arguments['times']} times"


class TestDates:
    ASKED = request("Book it for March 25th, 2023.", day=DATE)

    @pytest.mark.parametrize("drafted", ["2023-03-25", "March 25th, 2023", "25/03/2023", "03-25"])
    def test_a_new_day_in_both_styles_even_if_the_draft_has_the_wrong_one(
        self, drafted: str
    ) -> None:
        made = practice(self.ASKED, call(day=drafted))
        assert len(made) == 3
        for example_ in made:
            assert re.fullmatch(r"Book it for [A-Z][a-z]+ \d+[a-z]+, \d{4}\.", example_.user_text)
            day = example_.tool_calls[0].arguments["day"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", day)
            assert day != "2023-03-25"
            assert ground(day, DATE, example_.user_text).status is Status.REWORDED

    def test_two_arguments_of_one_date_stay_one_date(self) -> None:
        asked = request("From and to March 25th, 2023", start=DATE, end=DATE)
        for made in some(asked, call(start="2023-03-25", end="2023-03-25")):
            arguments = made.tool_calls[0].arguments
            assert arguments["start"] == arguments["end"]

    def test_one_date_in_two_styles(self) -> None:
        """One argument wants it in a format, the other as it stands."""
        asked = request("Note March 25th, 2023", day=DATE, text=TEXT)
        for made in some(asked, call(day="2023-03-25", text="March 25th, 2023")):
            arguments = made.tool_calls[0].arguments
            assert made.user_text == f"Note {arguments['text']}"
            assert ground(arguments["day"], DATE, made.user_text).status is Status.REWORDED

    @pytest.mark.parametrize(
        "told",
        [
            *("March 25th, 2023", "2023-03-25", "25/3/2023", "the third of May 2021"),
            *("9:30 pm", "9 PM", "9:05", "14:05", "half past nine"),
        ],
    )
    def test_what_the_draft_copied_stays_a_copy_and_a_date(self, told: str) -> None:
        """Where no format is stated, practice must not teach to rewrite `9 PM` as `09 PM`."""
        asked = request(f"Note {told} down", note=TEXT)
        for made in some(asked, call(note=told), write=no_writer):
            note = made.tool_calls[0].arguments["note"]
            assert made.user_text == f"Note {note} down"
            (phrase,) = temporal.find(note)
            assert phrase.surface == note != told
            assert phrase.meaning is not None

    def test_a_time_in_words(self) -> None:
        asked = request("Wake me at half past nine", at=TIME)
        for made in some(asked, call(at="09:30"), count=2):
            assert made.user_text.startswith("Wake me at half past ")
            assert made.tool_calls[0].arguments["at"].endswith(":30")

    def test_without_a_year_it_is_left_as_the_draft_has_it(self) -> None:
        asked = request("Send 5 on March 25th", number=WHOLE, day=DATE)
        text, arguments = one(asked, call(number=5, day="2023-03-25"))
        assert arguments["day"] == "2023-03-25"
        assert text == f"Send {arguments['number']} on March 25th"

    def test_a_format_of_day_and_time_is_left_as_the_draft_has_it(self) -> None:
        both = {"type": "string", "description": "YYYY-MM-DD HH:MM:SS"}
        asked = request("Send 5 on March 25th, 2023 at 9 pm", number=WHOLE, when=both)
        text, arguments = one(asked, call(number=5, when="2023-03-25 21:00:00"))
        assert arguments["when"] == "2023-03-25 21:00:00"
        assert text.endswith("on March 25th, 2023 at 9 pm")

    def test_tomorrow_leaves_the_date_as_the_draft_has_it(self) -> None:
        asked = request("Send 5 tomorrow", number=WHOLE, day=DATE)
        text, arguments = one(asked, call(number=5, day="2023-03-25"))
        assert arguments["day"] == "2023-03-25"
        assert text == f"Send {arguments['number']} tomorrow"


class TestOtherForms:
    @pytest.mark.parametrize(
        ("said", "schema", "value", "pattern"),
        [
            (
                "an hour and a quarter",
                {"type": "integer", "title": "x", "description": "in minutes"},
                75,
                r"\d+",
            ),
            ("30 minutes", {"type": "integer", "description": "in seconds"}, 30, r"\d+00?"),
            ("Japan", {"description": "ISO 3166-1 alpha-2"}, "JP", "[A-Z]{2}"),
            ("German", {"description": "ISO 639-1"}, "German", "[a-z]{2}"),
            ("half a million", NUMBER, 500000, r"\d+00000"),
            (
                "in progress",
                {"enum": ["to_do", "in_progress", "on_hold"]},
                "in_progress",
                "[a-z]+_[a-z]+",
            ),
            ("+44 20 7946 0018", TEXT, "+442079460018", r"\+44\d{10}"),
            ("half past nine", TIME, "21:30", r"(1[2-9]|2\d|00):30"),
            ("November 2023", {"description": "YYYY-MM"}, "2023-11", r"\d{4}-\d\d"),
        ],
    )
    def test_practice_shows_a_fresh_phrase_and_its_fresh_value(
        self, said: str, schema: Any, value: Any, pattern: str
    ) -> None:
        asked = request(f"Put it at {said}, please", x=schema)
        for made in some(asked, call(x=value), write=no_writer):
            fresh = made.tool_calls[0].arguments["x"]
            assert re.fullmatch(pattern, str(fresh))
            assert fresh != value
            assert said not in made.user_text
            assert ground(fresh, {**schema, "title": "x"}, made.user_text).status is Status.REWORDED

    def test_a_sign_and_its_amount_change_each_for_itself(self) -> None:
        money = {"type": "string", "description": "ISO 4217"}
        asked = request("Send $1,200 off", amount=NUMBER, currency=money)
        for made in some(asked, call(amount=1200, currency="USD")):
            arguments = made.tool_calls[0].arguments
            assert arguments["currency"] != "USD"
            assert re.fullmatch(rf"Send [€£¥₹]{arguments['amount']:,} off", made.user_text)

    def test_a_friend_is_no_country(self) -> None:
        _text, arguments = one(request("Tell Jordan", who=TEXT), call(who="Jordan"))
        assert arguments == {"who": "Amber"}
        country = request("Tell Jordan", who={"description": "The country"})
        assert practice(country, call(who="Jordan"), write=no_writer)

    @pytest.mark.parametrize(
        ("schema", "value"),
        [
            ({"type": "array", "items": TEXT}, ["apples", "pears"]),
            (TEXT, "apples, pears"),
            (TEXT, "apples,pears"),
        ],
    )
    def test_a_list_is_varied_item_by_item(self, schema: Any, value: Any) -> None:
        asked = request("Buy apples and pears", what=schema)
        for made in some(asked, call(what=value), count=2):
            what = made.tool_calls[0].arguments["what"]
            assert type(what) is type(value)
            items = what if isinstance(what, list) else re.split(", ?", what)
            assert set(items) <= set(NEW)
            assert made.user_text == f"Buy {' and '.join(items)}"

    def test_rejected_candidates_are_replaced(self) -> None:
        """Two currencies are left, so many candidates are each other's copies."""
        asked = request("Convert it to US dollars", to={"enum": ["USD", "EUR", "GBP"]})
        made = practice(asked, call(to="USD"), count=2)
        assert len(made) == 2


class TestInvented:
    FORCE = "The force on a mass of 37.5 with an acceleration of 14.3"

    def test_an_optional_argument_is_left_out(self) -> None:
        asked = request("Call Maria", required=["who"], who=TEXT, day=TEXT)
        assert one(asked, call(who="Maria", day="Monday")) == ("Call Amber", {"who": "Amber"})

    def test_a_required_one_is_kept_as_the_draft_has_it(self) -> None:
        asked = request("Call Maria", required=["who", "title"], who=TEXT, title=TEXT)
        draft = call(who="Maria", title="Doctor")
        assert one(asked, draft) == ("Call Amber", {"who": "Amber", "title": "Doctor"})

    def test_a_number_that_another_argument_has_used_excuses_nothing(self) -> None:
        asked = request(
            self.FORCE, required=["mass"], mass=NUMBER, acceleration=NUMBER, time=NUMBER
        )
        analysis = analyse(asked, [call(mass=37.5, acceleration=14.3, time=10)])
        assert analysis.calls == (call(mass=37.5, acceleration=14.3),)

    @pytest.mark.parametrize("value", ["mysterious", "", []])
    def test_where_nothing_is_required_what_is_copied_from_the_schema_or_empty_goes(
        self, value: Any
    ) -> None:
        asked = request("Call Maria", required=None, who=TEXT, mood={"description": "mysterious"})
        analysis = analyse(asked, [call(who="Maria", mood=value)])
        assert analysis.calls == (call(who="Maria"),)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [("place", "US"), ("loud", True), ("day", "2023-10-15"), ("who2", "nurse"), ("n", 13)],
    )
    @pytest.mark.parametrize("required", [None, ["who"]])
    def test_what_may_be_meant_in_other_words_stays(
        self, argument: str, value: Any, required: Any
    ) -> None:
        """Taking such values out taught the model to drop right ones."""
        asked = request(
            "Maria, a dozen nurses, on October 15th, in the States, please shout",
            required=required,
            who=TEXT,
            **{argument: {}},
        )
        draft = call(who="Maria", **{argument: value})
        analysis = analyse(asked, [draft])
        assert analysis.calls == (draft,)
        assert argument in analysis.kept[0]
        text, arguments = one(asked, draft)
        assert arguments[argument] == value
        assert text == asked.user_text.replace("Maria", str(arguments["who"]))


class TestOwnWords:
    @pytest.mark.parametrize(
        "said", ["I can't sleep, play {}", "[urgent] call {}", 'Replace "arguments" by {}']
    )
    def test_are_neither_a_refusal_nor_code(self, said: str) -> None:
        """What the verifier looks for in written requests is no fault in the user's own words."""
        made = practice(request(said.format("Maria"), who=TEXT), call(who="Maria"))
        assert [m.user_text for m in made] == [said.format(name) for name in NEW[:3]]


class TestConversations:
    SAID = (
        {"role": "system", "content": "You serve Rome."},
        {"role": "user", "content": "Flights from Rome to Paris?"},
        {
            "role": "assistant",
            "content": "Looking from Rome.",
            "tool_calls": [{"function": {"name": "do", "arguments": {"a": "Rome", "n": ["Rome"]}}}],
        },
        {"role": "tool", "content": '{"from": "Rome", "seats": 2}'},
        {"role": "user", "content": "Book it from Rome"},
    )

    def test_every_turn_but_the_system_message_changes(self) -> None:
        made = practice(request(list(self.SAID), a=TEXT), call(a="Rome"))[0]
        told = made.tool_calls[0].arguments["a"]
        assert told == "Amber"
        assert [m.content for m in made.messages] == [
            "You serve Rome.",
            "Flights from Amber to Paris?",
            "Looking from Amber.",
            '{"from": "Amber", "seats": 2}',
            "Book it from Amber",
        ]
        assert [m.role for m in made.messages] == [m["role"] for m in self.SAID]

    def test_past_calls_change_as_well(self) -> None:
        """A conversation that asks for Amber and then looks up Rome teaches nonsense."""
        made = practice(request(list(self.SAID), a=TEXT), call(a="Rome"))[0]
        assert made.messages[2].tool_calls[0].arguments == {"a": "Amber", "n": ["Amber"]}

    def test_a_value_of_a_tool_result_can_be_varied(self) -> None:
        asked = request(list(self.SAID), a=TEXT, seats=WHOLE)
        made = practice(asked, call(a="Rome", seats=2))[0]
        seats = made.tool_calls[0].arguments["seats"]
        assert seats != 2
        assert f'"seats": {seats}}}' in made.messages[3].content


class TestDraft:
    def test_number_and_order_of_calls_follow_it(self) -> None:
        asked = request("Call Maria and Ann", who=TEXT)
        for made in some(asked, call(who="Maria"), call(who="Ann")):
            names = [c.arguments["who"] for c in made.tool_calls]
            assert made.user_text == f"Call {names[0]} and {names[1]}"
            assert made.source == "substitution"

    def test_nothing_stated_no_example(self) -> None:
        asked = request("Turn it on", on={"type": "boolean"})
        assert (
            list(substitute(asked, analyse(asked, [call(on=True)]), 3, random.Random(0), writer))
            == []
        )

    def test_nothing_fresh_no_example(self) -> None:
        asked = request("Set it to on", to={"enum": ["on"]})
        assert practice(asked, call(to="on")) == []

    def test_is_not_changed(self) -> None:
        asked = request("Send 5 to Maria", number=WHOLE, to=TEXT)
        draft = call(number=5, to="Maria")
        practice(asked, draft)
        assert draft == call(number=5, to="Maria")
        assert asked.user_text == "Send 5 to Maria"

    def test_a_list_follows_the_words_it_was_taken_from(self) -> None:
        asked = request("From Rome by way of Rome and Milan", start=TEXT, stops={"type": "array"})
        for made in some(asked, call(start="Rome", stops=["Rome", "Milan"])):
            arguments = made.tool_calls[0].arguments
            first, second = arguments["stops"]
            assert made.user_text == f"From {arguments['start']} by way of {first} and {second}"


# --- any request, any draft -----------------------------------------------------------------------

SURFACES = {
    "Maria": "Maria", "twitter": "Twitter", "Abbey Road": "Abbey Road", "AB12": "AB12",
    "2023-03-25": "March 25th, 2023", "21:30": "9:30 pm", "09:30": "half past nine",
    "25/12/2023": "25/12/2023", "March 25th, 2023": "March 25th, 2023", "on": "on",
    "9999-12-31": "9999-12-31", "US": "the States", "ann@mail.org": "ann@mail.org",
}  # fmt: skip
NUMBERS = {3: "3", 21: "twenty-one", 1200: "1,200", 3.5: "3.5", -5: "-5", 2023: "2023"}
PAIRS = st.sampled_from([*SURFACES.items(), *NUMBERS.items()])
PROPERTIES = st.sampled_from(
    [TEXT, WHOLE, NUMBER, DATE, TIME, PLATFORM, {"enum": ["on", "off", "AUTO"]}, {}, True]
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.just(10**400) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)


@st.composite
def asked_and_drafted(draw: st.DrawFn) -> tuple[Request, list[ToolCall]]:
    pairs = draw(st.lists(PAIRS, max_size=4))
    words = draw(st.lists(st.text(max_size=4), min_size=len(pairs) + 1, max_size=len(pairs) + 1))
    text = " ".join(part for w, (_, s) in zip(words, pairs, strict=False) for part in (w, s))
    names = [f"p{i}" for i in range(len(pairs))]
    properties = {name: draw(PROPERTIES) for name in names}
    required = draw(st.none() | st.lists(st.sampled_from(names or ["x"]), unique=True))
    arguments: dict[str, Any] = dict(zip(names, (value for value, _ in pairs), strict=True))
    arguments |= draw(st.dictionaries(st.sampled_from(["p0", "p1", "q"]), JUNK, max_size=1))
    return request(text + words[-1] + ".", required=required, **properties), [
        ToolCall(draw(st.sampled_from(["do", "do", "other"])), arguments),
        *draw(st.lists(st.just(call(**arguments)), max_size=1)),
    ]


class TestAnything:
    @CHEAP
    @given(asked_and_drafted(), st.lists(st.text(max_size=6), max_size=3), st.integers(0, 99))
    @example((request("Send 5", n=WHOLE), [call(n=10**400)]), [], 0)
    @example((request("on 9999-12-31", d=DATE), [call(d="9999-12-31")]), [], 0)
    @example(
        (
            request("March 25th, 2023", a=DATE, b=TEXT),
            [call(a="2023-03-25", b="March 25th, 2023")],
        ),
        [],
        0,
    )
    def test_never_raises_and_what_is_kept_is_valid_and_stated(
        self, given_: tuple[Request, list[ToolCall]], written: list[str], seed: int
    ) -> None:
        asked, draft = given_
        analysis: Analysis = analyse(asked, draft)
        kept: list[Example] = []
        made = substitute(
            asked, analysis, 3, random.Random(seed), lambda asks: [list(written) for _ in asks]
        )
        for candidate in made:
            assert [c.name for c in candidate.tool_calls] == [c.name for c in draft]
            if reject(candidate, asked, kept, analysis.kept) is not None:
                event("rejected")
                continue
            event("kept")
            kept.append(candidate)
            for number, made_call in enumerate(candidate.tool_calls):
                assert toolcalls.problem(made_call, asked.tools) is None
                tool = asked.tool(made_call.name)
                assert tool is not None
                for name, value in made_call.arguments.items():
                    schema = tool.properties.get(name)
                    schema = schema if isinstance(schema, dict) else {}
                    status = ground(value, schema, candidate.user_text).status
                    stated = status in (Status.STATED, Status.REWORDED)
                    assert stated or name in analysis.kept[number]
