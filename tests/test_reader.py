"""Requests from text: one object, a list or JSON lines; a bad one never stops the others."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quickstudy.errors import RequestError
from quickstudy.reader import BadRequest, read_requests
from quickstudy.types import Request

CHEAP = settings(deadline=None, max_examples=200)

HI = {"messages": [{"role": "user", "content": "Hi"}]}


def deep(depth: int) -> str:
    """A request whose tool has a schema `depth` levels deep."""
    schema = '{"not": ' * depth + "{}" + "}" * depth
    return f'{{"messages": "Hi", "tools": [{{"name": "f", "parameters": {schema}}}]}}'


class TestShapes:
    def test_one_object(self) -> None:
        (request,) = read_requests(json.dumps(HI, indent=2))
        assert isinstance(request, Request)
        assert request.user_text == "Hi"

    def test_a_list(self) -> None:
        found = read_requests(json.dumps([HI, {"messages": "Bye"}], indent=2))
        assert [r.user_text for r in found if isinstance(r, Request)] == ["Hi", "Bye"]

    def test_json_lines(self) -> None:
        found = read_requests(f'\n{json.dumps(HI)}\r\n\n{{"messages": "Bye"}}\n')
        assert [r.user_text for r in found if isinstance(r, Request)] == ["Hi", "Bye"]

    @pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
    def test_lines_end_at_line_feeds_only(self, separator: str) -> None:
        """JSON strings may hold Unicode's other line ends as they are."""
        said = f"Dear Ann,{separator}hello"
        lines = json.dumps({"messages": said}, ensure_ascii=False)
        found = read_requests(f"{lines}\n{lines}\n")
        assert [r.user_text for r in found if isinstance(r, Request)] == [said, said]

    @pytest.mark.parametrize("text", ["", " \n\t ", "[]"])
    def test_no_request_at_all(self, text: str) -> None:
        with pytest.raises(RequestError, match="no request"):
            read_requests(text)


class TestIds:
    def test_own_else_the_number_from_one(self) -> None:
        items = [HI, {**HI, "id": "x"}, {**HI, "id": 7}, HI]
        assert [r.id for r in read_requests(json.dumps(items))] == [1, "x", 7, 4]

    def test_blank_lines_do_not_count(self) -> None:
        text = f"\n\n{json.dumps(HI)}\n\n{json.dumps(HI)}"
        assert [r.id for r in read_requests(text)] == [1, 2]

    @pytest.mark.parametrize("id", [None, True, 1.5, ["a"], {}])
    def test_what_is_no_id_becomes_the_number(self, id: Any) -> None:
        assert [r.id for r in read_requests(json.dumps([HI, {**HI, "id": id}]))] == [1, 2]


class TestBad:
    def test_a_bad_line_in_the_middle(self) -> None:
        good = json.dumps(HI)
        first, bad, last = read_requests(f"{good}\n\n{{oops}}\n{good}")
        assert isinstance(first, Request)
        assert isinstance(last, Request)
        assert isinstance(bad, BadRequest)
        assert (first.id, bad.id, last.id) == (1, 2, 3)
        assert "line 3 is no JSON" in bad.error
        assert bad.to_json() == {"id": 2, "error": bad.error}

    @pytest.mark.parametrize(
        ("item", "error"),
        [
            ("Hi", "expected an object"),
            (None, "expected an object"),
            ({"id": "x"}, "messages are missing"),
            ({"id": "x", "messages": []}, "non-empty"),
            ({"id": "x", "messages": [{"role": "boss"}]}, "unknown role 'boss'"),
            ({"id": "x", **HI, "tools": [{}]}, "tools[0]"),
            ({"id": "x", **HI, "choices": "AB"}, "choices: expected a list"),
            ({"id": "x", **HI, "choices": ["A"]}, "two or more"),
            ({"id": "x", **HI, "choices": ["A", 1]}, "choices[1]: expected text, got 1"),
            ({"id": "x", **HI, "choices": ["A", " "]}, "choices[1]"),
            ({"id": "x", **HI, "choices": ["A", "A"]}, "'A' is listed twice"),
            ({"id": "x", **HI, "choices": ["A", "\ud800"]}, "cannot be written as JSON"),
        ],
    )
    def test_says_what_is_wrong(self, item: Any, error: str) -> None:
        _, bad = read_requests(json.dumps([HI, item]))
        assert isinstance(bad, BadRequest)
        assert error in bad.error
        assert bad.id == ("x" if isinstance(item, dict) else 2)

    @pytest.mark.parametrize("depth", [300, 900, 100_000])
    def test_too_deep_to_read(self, depth: int) -> None:
        good = json.dumps(HI)
        first, bad, last = read_requests(f"{good}\n{deep(depth)}\n{good}")
        assert isinstance(bad, BadRequest)
        assert "deep" in bad.error
        assert isinstance(first, Request)
        assert isinstance(last, Request)


class TestNoJson:
    @pytest.mark.parametrize(
        ("text", "line", "column"),
        [
            ("{oops}", 1, 2),
            ('{\n "messages": [\n  {"role": "user"\n   "content": "Hi"}\n ]\n}', 4, 4),
            ('[\n{"messages": "Hi"},\n{"messages": "Bye"}\n,]', 4, 2),
            ('{\n "messages": [\n  {"role": "user", "content": "Hi"}\n', 4, 1),
            ("\nnot json\nat all", 2, 1),
        ],
    )
    def test_a_document_is_one_fault_with_its_place(
        self, text: str, line: int, column: int
    ) -> None:
        (bad,) = read_requests(text)
        assert isinstance(bad, BadRequest)
        assert bad.error.startswith(f"line {line} is no JSON: ")
        assert bad.error.endswith(f"at column {column}")

    def test_a_line_of_requests_has_its_own_place(self) -> None:
        _, bad, _ = read_requests(f'{json.dumps(HI)}\n\n{{"a": }}\n{json.dumps(HI)}')
        assert isinstance(bad, BadRequest)
        assert bad.error == "line 3 is no JSON: Expecting value at column 7"


class TestUnknownFields:
    def test_are_warned_of_once(self) -> None:
        items = [{**HI, "model": "x", "stream": True}, {**HI, "model": "y"}]
        with pytest.warns(UserWarning, match="fields ignored") as caught:
            found = read_requests(json.dumps(items))
        assert [str(w.message) for w in caught] == ["fields ignored: model, stream"]
        assert all(isinstance(r, Request) for r in found)

    def test_known_ones_are_not(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (request,) = read_requests(
                json.dumps({**HI, "id": 1, "tools": [], "choices": ["A", "B"]})
            )
        assert isinstance(request, Request)
        assert request.choices == ("A", "B")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["user", "Hi", "object"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "messages", "tools", "role", "content", "name", "parameters", "type"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
REQUESTS = JSON | st.builds(lambda extra: {**HI, **extra}, st.dictionaries(st.text(), JSON))
LINES = st.lists(REQUESTS.map(json.dumps) | st.text(), max_size=4).map("\n".join)


@CHEAP
@given(st.text() | LINES | REQUESTS.map(json.dumps))
@example(deep(400))
@example('{"messages": "\\ud800", "id": "\\udfff"}')
@example("1" * 5000)
@example("[" * 100_000)
@example('{"messages": ' * 500)
@example("\ufeff{}")
def test_never_raises_anything_else(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_requests(text)
        except RequestError:
            return
    assert found
    for item in found:
        assert isinstance(item, Request | BadRequest)
        assert isinstance(item.id, str | int)
        assert not isinstance(item.id, bool)
