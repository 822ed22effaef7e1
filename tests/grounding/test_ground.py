"""Stated, reworded, invented or unclear: the judgement that all verification rests on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quickstudy.grounding.ground import (
    Status,
    find_surface,
    ground,
    ground_all,
    lacking,
    numbers,
)
from quickstudy.grounding.numerals import NUMBER_WORDS
from quickstudy.types import Message, Request, ToolCall

CHEAP = settings(deadline=None, max_examples=150)
STATED, REWORDED, INVENTED, UNCLEAR = (
    Status.STATED,
    Status.REWORDED,
    Status.INVENTED,
    Status.UNCLEAR,
)
DATE = {"type": "string", "description": "the day, YYYY-MM-DD"}
BOTH = {"type": "string", "description": "when, YYYY-MM-DD HH:MM:SS"}
TEXT = {"type": "string"}

FRAGMENTS = (
    "March 25th, 2023", "2023-03-25", "9 pm", "tomorrow", "twenty-one", "1,200", "37.5", "-5",
    "5kg", "a dozen", "Twitter", "twitter", "US", "party", "art", "true", "²", "٣", "", " ",
    "YYYY-MM-DD", "e.g. 10:30", "(", "\\", "\n", "x^2",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=6), max_size=4).map(" ".join)
HUGE = 10**400  # a JSON number that no float holds
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(HUGE) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SCHEMAS = st.dictionaries(
    st.sampled_from(["description", "format", "enum", "items", "type", "default"]),
    JSON | st.sampled_from(["date", "time", "date-time", "string"]),
    max_size=4,
)


def status(value: Any, text: str, schema: Any = TEXT) -> Status:
    return ground(value, schema, text).status


class TestText:
    def test_stands_word_for_word(self) -> None:
        found = ground("Abbey Road", TEXT, "Play Abbey Road now")
        assert (found.status, found.surface) == (STATED, "Abbey Road")

    def test_surface_has_the_letters_of_the_request(self) -> None:
        found = ground("twitter", TEXT, "Post it on Twitter")
        assert (found.status, found.surface) == (STATED, "Twitter")

    def test_exact_letters_are_preferred(self) -> None:
        assert find_surface("Art", "The art of Art") == "Art"

    def test_words_are_not_cut(self) -> None:
        assert status("part", "We have departed") is INVENTED
        assert status("art", "Come to the party") is not STATED

    def test_another_form_of_a_word_is_unclear(self) -> None:
        assert status("nurse", "How many nurses are there?") is UNCLEAR
        assert status("colour", "Which color is it?") is UNCLEAR

    def test_no_word_of_the_request_could_have_led_to_it(self) -> None:
        assert status("hospital", "Find nurses for Monday") is INVENTED

    @pytest.mark.parametrize("value", ["GB", "NASA", "en", "kg"])
    def test_a_code_is_unclear(self, value: str) -> None:
        assert status(value, "News from the United States") is UNCLEAR

    def test_a_choice_among_few_is_unclear(self) -> None:
        """`warm` may be meant by "make it cosy"."""
        assert status("warm", "Make it cosy") is INVENTED
        assert status("warm", "Make it cosy", {"enum": ["warm", "cold"]}) is UNCLEAR

    def test_a_code_that_is_not_there_in_words_is_no_part_of_a_word(self) -> None:
        assert status("US", "A bus") is UNCLEAR

    @pytest.mark.parametrize("value", [None, "", [], {}, " ", "\n"])
    def test_an_empty_value_states_nothing(self, value: Any) -> None:
        assert status(value, "Anything at all.") is INVENTED

    @pytest.mark.parametrize("value", [True, False, {"a": "b"}])
    def test_booleans_and_objects_are_unclear(self, value: Any) -> None:
        assert status(value, "Nothing about it") is UNCLEAR

    def test_a_list_is_stated_if_each_item_is(self) -> None:
        text = "Mail Ann and Bob"
        assert status(["Ann", "Bob"], text, {"items": TEXT}) is STATED
        assert status(["Ann", "Zoe"], text, {"items": TEXT}) is UNCLEAR
        assert status(["Yara", "Zelda"], text, {"items": TEXT}) is INVENTED


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "text", "surface"),
        [
            (21, "Set it to 21 degrees", "21"),
            (21.0, "Set it to 21 degrees", "21"),
            (21, "Set it to twenty-one degrees", "twenty-one"),
            (21, "Twenty-One degrees", "Twenty-One"),
            (1200, "Transfer 1,200 euros", "1,200"),
            (1234567.5, "It was 1,234,567.5.", "1,234,567.5"),
            (-5, "Down to -5 degrees", "-5"),
            (0, "zero of them", "zero"),
        ],
    )
    def test_are_stated_in_any_spelling(self, value: float, text: str, surface: str) -> None:
        found = ground(value, {}, text)
        assert (found.status, found.surface) == (STATED, surface)

    @pytest.mark.parametrize("text", ["x21 is a code", "a 21st birthday", "2^21", "221", "21.5"])
    def test_other_numbers_are_not_it(self, text: str) -> None:
        assert status(21, text) is not STATED

    @pytest.mark.parametrize(
        ("text", "surface"),
        [
            ("From 2027-03-05 for 3 nights", "3"),
            ("For 3 nights from 2027-03-05", "3"),
            ("Three nights from 2027-03-05", "Three"),
            ("At 3:30 for 3 hours", "3"),
            ("From 2027-03-05", "03"),
        ],
    )
    def test_a_number_of_its_own_comes_before_a_part_of_a_date(
        self, text: str, surface: str
    ) -> None:
        assert ground(3, {"type": "integer"}, text).surface == surface

    def test_five_is_not_minus_five(self) -> None:
        assert status(5, "at -5 degrees") is UNCLEAR

    @pytest.mark.parametrize("text", ["6 kg", "5kg of flour", "two dozen eggs", "half of them"])
    def test_what_might_be_computed_is_unclear(self, text: str) -> None:
        assert status(12, text) is UNCLEAR

    def test_where_no_number_is_told_it_is_invented(self) -> None:
        assert status(10, "How fast is it?") is INVENTED

    @CHEAP
    @given(st.sampled_from(sorted(NUMBER_WORDS)))
    def test_every_number_word_is_read(self, word: str) -> None:
        assert numbers(f"take {word} of them") == [(word, NUMBER_WORDS[word])]

    @CHEAP
    @given(st.integers(-(10**12), 10**12))
    def test_thousands_commas(self, number: int) -> None:
        assert numbers(f"it is {number:,}.") == [(f"{number:,}", number)]


class TestMoments:
    def test_words_ground_a_code(self) -> None:
        found = ground("2023-03-25", DATE, "Book it for March 25th, 2023.")
        assert (found.status, found.surface) == (REWORDED, "March 25th, 2023")
        assert found.phrase is not None

    def test_the_code_itself_is_stated(self) -> None:
        assert status("2023-03-25", "On 2023-03-25", DATE) is STATED

    def test_written_wrongly_the_only_date_is_meant(self) -> None:
        found = ground("25th of march", DATE, "Book it for March 25th, 2023.")
        assert (found.status, found.surface) == (REWORDED, "March 25th, 2023")

    def test_written_wrongly_one_of_two_dates_is_unclear(self) -> None:
        text = "From March 25th, 2023 to March 29th, 2023"
        assert status("March", text, DATE) is UNCLEAR
        assert ground("2023-03-29", DATE, text).surface == "March 29th, 2023"

    def test_without_a_year_a_date_with_a_year_is_not_grounded(self) -> None:
        assert status("2023-03-25", "Book it for March 25th.", DATE) is UNCLEAR

    def test_a_date_with_a_time_is_left_alone(self) -> None:
        text = "Book it for March 25th, 2023 at 10:00."
        assert status("2023-03-25 10:00:00", text, BOTH) is UNCLEAR

    @pytest.mark.parametrize("schema", [DATE, TEXT])
    def test_tomorrow_may_be_any_date(self, schema: Any) -> None:
        assert status("2023-03-25", "Book it for tomorrow", schema) is UNCLEAR

    @pytest.mark.parametrize("schema", [DATE, TEXT])
    def test_where_nothing_tells_a_day_it_is_invented(self, schema: Any) -> None:
        assert status("2023-03-25", "Book the big room", schema) is INVENTED

    def test_a_part_of_a_date_is_not_another_date(self) -> None:
        assert status("03-25", "Book it for 2023-03-25", {"description": "MM-DD"}) is REWORDED
        assert status("23-03", "Book it for 2023-03-25") is not STATED


class TestTogether:
    TEXT = "The force on a mass of 37.5 with an acceleration of 14.3"

    def test_a_number_used_by_one_argument_does_not_excuse_another(self) -> None:
        found = ground_all({"mass": 37.5, "acceleration": 14.3, "time": 10}, {}, self.TEXT)
        assert {name: f.status for name, f in found.items()} == {
            "mass": STATED,
            "acceleration": STATED,
            "time": INVENTED,
        }

    def test_a_number_that_is_left_does(self) -> None:
        assert ground_all({"mass": 37.5, "time": 10}, {}, self.TEXT)["time"].status is UNCLEAR

    def test_a_date_used_by_one_argument_does_not_excuse_another(self) -> None:
        arguments = {"start": "2023-03-25", "end": "2023-04-01"}
        found = ground_all(arguments, {"start": DATE, "end": TEXT}, "From March 25th, 2023.")
        assert found["start"].status is REWORDED
        assert found["end"].status is INVENTED

    def test_a_phrase_used_by_one_argument_is_not_what_another_says_wrongly(self) -> None:
        seconds = {"type": "number", "description": "in seconds"}
        arguments = {"length": 1800, "fade": 12}
        found = ground_all(arguments, {"length": seconds, "fade": seconds}, "for 30 minutes")
        assert found["length"].status is REWORDED
        assert found["fade"].status is not REWORDED

    def test_a_number_used_by_one_argument_is_not_what_another_says_wrongly(self) -> None:
        properties = {"length": {}, "fade": {"type": "number", "description": "in seconds"}}
        found = ground_all({"length": 30, "fade": 12}, properties, "for 30 minutes")
        assert found["length"].status is STATED
        assert found["fade"].status is not REWORDED

    def test_one_phrase_is_not_what_two_arguments_say_wrongly(self) -> None:
        arguments = {"start": "March", "end": "April"}
        found = ground_all(arguments, {"start": DATE, "end": DATE}, "On March 25th, 2023.")
        assert REWORDED not in {g.status for g in found.values()}

    def test_words_are_not_used_up(self) -> None:
        arguments = {"who": "nurse", "name": "Ann", "on": True}
        found = ground_all(arguments, {}, "Ann asks for nurses")
        assert found["who"].status is found["on"].status is UNCLEAR
        assert found["name"].status is STATED


class TestOtherForms:
    @pytest.mark.parametrize(
        ("value", "text", "schema", "surface"),
        [
            (
                75,
                "for an hour and a quarter",
                {"type": "integer", "title": "minutes"},
                "an hour and a quarter",
            ),
            (30, "for 30 minutes", {"type": "integer", "description": "in seconds"}, "30 minutes"),
            (250000, "two hundred and fifty thousand", {}, "two hundred and fifty thousand"),
            ("EUR", "forty euros", TEXT, "euros"),
            ("Germany", "in Germany", {"description": "ISO 3166-1 alpha-2"}, "Germany"),
            ("in_progress", "It is in progress", {"enum": ["open", "in_progress"]}, "in progress"),
            ("HIGH", "high priority", {"enum": ["LOW", "HIGH"]}, "high"),
            ("+442079460018", "call +44 20 7946 0018", TEXT, "+44 20 7946 0018"),
            ("2023-11", "for November 2023", {"description": "YYYY-MM"}, "November 2023"),
        ],
    )
    def test_ground_a_value(self, value: Any, text: str, schema: Any, surface: str) -> None:
        found = ground(value, schema, text)
        assert (found.status, found.surface) == (REWORDED, surface)

    @pytest.mark.parametrize(
        ("value", "text", "schema"),
        [
            (30, "for 30 minutes", {"type": "integer", "description": "in minutes"}),
            (5, "5 kg and 300 g", {"type": "number", "description": "in kg"}),
            ("37.5", "a mass of 37.5 kg", {"type": "number", "description": "in kilograms"}),
            ("Germany", "in Germany", {"description": "The country"}),
            ("high", "high priority", {"enum": ["low", "high"]}),
        ],
    )
    def test_a_copy_is_stated(self, value: Any, text: str, schema: Any) -> None:
        assert status(value, text, schema) is STATED

    @pytest.mark.parametrize(
        ("value", "text"),
        [(1, "A mile is how much?"), (7, "a week"), ("open_valve", "open the valve")],
    )
    def test_what_may_be_meant_is_unclear(self, value: Any, text: str) -> None:
        assert status(value, text) is UNCLEAR

    def test_a_part_of_a_number_is_not_stated(self) -> None:
        assert status(2, "two hundred and fifty") is UNCLEAR

    @pytest.mark.parametrize("value", ["09:30", "21:30"])
    def test_half_past_nine_is_morning_or_evening(self, value: str) -> None:
        found = ground(value, {"description": "HH:MM"}, "Wake me at half past nine")
        assert (found.status, found.guess) == (REWORDED, False)
        assert found.phrase is not None
        assert f"{found.phrase.meaning:%H:%M}" == value

    def test_half_past_nine_in_the_evening_is_not_morning(self) -> None:
        text = "Wake me at half past nine in the evening"
        assert ground("09:30", {"description": "HH:MM"}, text).guess

    def test_a_list_of_codes(self) -> None:
        days = {"description": "first three letters, small letters", "items": TEXT}
        found = ground(["mon", "sat"], days, "on Monday and Saturday")
        assert [part.surface for part in found.parts] == ["Monday", "Saturday"]
        assert found.status is REWORDED

    @pytest.mark.parametrize(("value", "joint"), [("a pear, figs", ", "), ("a pear;figs", ";")])
    def test_a_list_wanted_as_text(self, value: str, joint: str) -> None:
        found = ground(value, TEXT, "Buy a pear and figs")
        assert (found.status, found.joint, len(found.parts)) == (STATED, joint, 2)

    def test_a_joined_list_with_a_strange_item_is_unclear(self) -> None:
        assert status("a pear, gold", "Buy a pear and figs") is UNCLEAR


class TestNeverRaises:
    @CHEAP
    @given(JSON, SCHEMAS, TEXTS)
    @example(HUGE, {}, "1,200")
    @example("2023-03-25", {"format": ["date"]}, "March 25th, 2023")
    @example("x", {"description": "YYYY-MM-DD/YYYY-MM-DD"}, "2023-03-25")
    @example(["a"], {"items": True}, "a")
    def test_ground(self, value: Any, schema: dict[str, Any], text: str) -> None:
        assert isinstance(status(value, text, schema), Status)

    @CHEAP
    @given(
        st.dictionaries(TEXTS, JSON, max_size=3), st.dictionaries(TEXTS, JSON, max_size=3), TEXTS
    )
    @example({"a": "9 pm", "b": 3}, {"a": True, "b": None}, "at 9 pm")
    def test_ground_all(self, arguments: Any, properties: Any, text: str) -> None:
        assert ground_all(arguments, properties, text).keys() == arguments.keys()

    @CHEAP
    @given(TEXTS, TEXTS)
    def test_surfaces_are_in_the_text(self, value: str, text: str) -> None:
        found = ground(value, {}, text)
        assert found.surface in text
        assert all(surface in text for surface, _ in numbers(text))


@pytest.mark.parametrize("text", ["I'm ill", "I’m ill", "m'aider"])
def test_a_letter_behind_an_apostrophe_is_no_word(text: str) -> None:
    assert ground("M", {"type": "string"}, text).status is not Status.STATED
    assert ground("M", {"type": "string"}, f"Size M. {text}").status is Status.STATED


class TestLacking:
    """What a call requires and nobody in the conversation has stated."""

    TOOL: ClassVar[dict[str, Any]] = {
        "name": "mail",
        "parameters": {
            "type": "object",
            "properties": {"to": {"type": "string"}, "body": {"type": "string"}, "cc": {}},
            "required": ["to", "body"],
        },
    }

    def of(self, arguments: dict[str, Any], *messages: Message) -> list[str]:
        said = messages or (Message("user", "Mail ana@x.org that I am late."),)
        request = replace(Request.parse("x", [self.TOOL]), messages=said)
        return lacking(ToolCall("mail", arguments), request)

    def test_an_invented_value(self) -> None:
        assert self.of({"to": "bob@example.com", "body": "I am late"}) == ["to"]

    def test_not_what_is_stated_reworded_or_unclear(self) -> None:
        assert self.of({"to": "ana@x.org", "body": "late"}) == []
        assert self.of({"to": "ana@x.org", "body": "Lately"}) == []

    @pytest.mark.parametrize("value", [None, "", [], {}])
    def test_not_what_says_nothing(self, value: Any) -> None:
        assert self.of({"to": "ana@x.org", "body": value}) == []

    def test_not_the_default(self) -> None:
        properties = {"n": {"type": "integer", "default": 10}, "m": {"type": "integer"}}
        schema = {"type": "object", "properties": properties, "required": ["m", "n"]}
        request = Request.parse("Look for cats", [{"name": "find", "parameters": schema}])
        assert lacking(ToolCall("find", {"n": 10, "m": 10}), request) == ["m"]
        assert lacking(ToolCall("find", {"n": 11, "m": 10}), request) == ["n", "m"]

    def test_not_what_is_not_required_or_missing(self) -> None:
        assert self.of({"to": "ana@x.org", "cc": "zoe"}) == []

    def test_not_a_text_that_is_composed(self) -> None:
        for composed in ("Silent autumn rain taps windows", "静かな秋の雨が窓を叩いている夜です"):
            assert self.of({"to": "ana@x.org", "body": composed}) == []
        assert self.of({"to": "ana@x.org", "body": "Silent autumn rain"}) == ["body"]

    @pytest.mark.parametrize("role", ["system", "assistant", "tool"])
    def test_not_what_another_has_said(self, role: Any) -> None:
        said = Message(role, "Bob is bob@example.com")
        given = {"to": "bob@example.com", "body": "late"}
        assert self.of(given, said, Message("user", "I am late")) == []

    def test_nor_what_was_used_before(self) -> None:
        before = Message("assistant", "", (ToolCall("mail", {"to": "bob@example.com"}),))
        given = {"to": "bob@example.com", "body": "late"}
        assert self.of(given, before, Message("user", "I am late")) == []

    def test_tools_not_listed_require_nothing(self) -> None:
        request = Request.parse("x", [self.TOOL])
        assert lacking(ToolCall("nail", {"to": "bob@example.com"}), request) == []
