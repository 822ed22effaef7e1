"""The authors' own scores, against figures counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from quickstudy.evals import official
from quickstudy.evals.task import Task
from quickstudy.types import Reply, Request, ToolCall

TOOLS = [
    {
        "name": "book",
        "parameters": {
            "type": "object",
            "properties": {"guests": {"type": "integer"}, "name": {}, "limit": {"default": 5}},
            "required": ["guests"],
        },
    },
    {"name": "list"},
]
ADA = ToolCall("book", {"guests": 2, "name": "Ada"})
BO = ToolCall("book", {"guests": 3, "name": "Bo"})
LIST = ToolCall("list", {})


def book(**arguments: Any) -> ToolCall:
    return ToolCall("book", arguments)


def task(*gold: ToolCall, id: str = "cve_cpe-0") -> Task:
    return Task(Request.parse("Book.", TOOLS, id), gold)


def reply(*calls: ToolCall, text: str = "") -> Reply:
    return Reply(text, calls)


def scores(prefix: str, what: str, told: official.Scores) -> list[float]:
    return [
        pytest.approx(told[f"{prefix}_{kind}_{what}"]) for kind in ("precision", "recall", "f1")
    ]


class TestHammer:
    def test_plain(self) -> None:
        told = official.hammer([task(ADA), task(BO)], [reply(book(guests=2, name="Al")), reply(BO)])
        assert scores("hammer", "name", told) == [1, 1, 1]
        assert scores("hammer", "argument", told) == [3 / 4, 3 / 4, 3 / 4]

    def test_a_right_call_without_arguments_is_credited_one_that_was_not_counted(self) -> None:
        """Perfect predictions have an F1 above 1."""
        told = official.hammer([task(ADA), task(LIST)], [reply(ADA), reply(LIST)])
        assert scores("hammer", "argument", told) == [3 / 2, 3 / 2, 3 / 2]

    def test_a_call_said_twice_is_credited_twice(self) -> None:
        told = official.hammer([task(ADA)], [reply(ADA, ADA)])
        assert scores("hammer", "name", told) == [1, 2, 4 / 3]
        assert scores("hammer", "argument", told) == [1, 2, 4 / 3]

    def test_the_first_gold_call_with_any_right_argument_is_taken(self) -> None:
        cy = book(guests=2, name="Cy")
        told = official.hammer([task(ADA, cy)], [reply(ADA, cy)])
        assert scores("hammer", "argument", told) == [3 / 4, 3 / 4, 3 / 4]

    def test_empty_arguments_do_not_count(self) -> None:
        told = official.hammer([task(book(guests=2, name=""))], [reply(book(guests=2, limit=""))])
        assert scores("hammer", "argument", told) == [1, 1, 1]

    def test_values_are_compared_as_python_writes_them(self) -> None:
        told = official.hammer([task(book(guests="2"))], [reply(book(guests=2))])
        assert told["hammer_f1_argument"] == 1
        told = official.hammer([task(book(guests="2"))], [reply(book(guests=2.0))])
        assert told["hammer_f1_argument"] == 0

    @pytest.mark.parametrize(
        ("text", "said"), [("Sorry.", 2), ("", 2), ("[]", 1), ("```json\n[]\n```", 1)]
    )
    def test_what_is_no_list_counts_as_a_wrong_name(self, text: str, said: int) -> None:
        told = official.hammer([task(ADA), task(BO)], [reply(ADA), reply(text=text)])
        assert told["hammer_precision_name"] == 1 / said
        assert told["hammer_recall_name"] == 1 / 2


class TestSealTools:
    def test_plain(self) -> None:
        replies = [reply(book(guests=2, name="Al", limit=5)), reply(LIST), reply(text="Sorry.")]
        told = official.sealtools([task(ADA), task(BO), task(BO)], replies)
        assert told["sealtools_readable"] == 2 / 3
        assert scores("sealtools", "name", told) == [1 / 2, 1 / 3, 2 / 5]
        assert scores("sealtools", "argument", told) == [1 / 3, 1 / 6, 2 / 9]

    def test_perfect_is_one(self) -> None:
        told = official.sealtools([task(ADA), task(LIST)], [reply(ADA), reply(LIST)])
        assert set(told.values()) == {1}

    def test_each_call_is_compared_with_the_first_gold_call_of_its_name(self) -> None:
        told = official.sealtools([task(ADA, BO)], [reply(ADA, BO)])
        assert scores("sealtools", "argument", told) == [1 / 2, 1 / 2, 1 / 2]

    def test_nothing_right(self) -> None:
        told = official.sealtools([task(ADA)], [reply()])
        assert set(told.values()) == {0}


class TestNexusRaven:
    @pytest.mark.parametrize(
        ("calls", "right"),
        [
            pytest.param([ADA], True, id="the same"),
            pytest.param([book(guests=2, name="Ada", limit=5)], True, id="default given"),
            pytest.param([book(name="Ada", guests=2.9)], True, id="floats are cut"),
            pytest.param([ADA, BO], True, id="the first counts"),
            pytest.param([BO, ADA], False, id="the second does not"),
            pytest.param([book(guests="2", name="Ada")], False, id="text is no number"),
            pytest.param([book(guests=2)], False, id="optional argument missing"),
            pytest.param([book(name="Ada")], False, id="required argument missing"),
            pytest.param([book(guests=2, name="Ada", wine=1)], False, id="unknown argument"),
            pytest.param([ToolCall("reserve", ADA.arguments)], False, id="unknown function"),
            pytest.param([LIST], False, id="another function"),
            pytest.param([], False, id="no call"),
        ],
    )
    def test_a_row(self, calls: list[ToolCall], right: bool) -> None:
        told = official.nexusraven([task(ADA)], [reply(*calls)])
        assert told["nexusraven_accuracy"] == right

    def test_null_is_the_default(self) -> None:
        for said in (book(guests=2, name=None), book(guests=2)):
            told = official.nexusraven([task(book(guests=2))], [reply(said)])
            assert told["nexusraven_accuracy"] == 1

    def test_functions_of_toolalpaca_have_no_defaults(self) -> None:
        whole = book(guests=2, name=None, limit=None)
        asked = task(whole, id="toolalpaca-3")
        assert official.nexusraven([asked], [reply(whole)])["nexusraven_accuracy"] == 1
        assert official.nexusraven([asked], [reply(book(guests=2))])["nexusraven_accuracy"] == 0

    def test_by_source(self) -> None:
        tasks = [task(ADA), task(ADA, id="virustotal-0"), task(ADA, id="virustotal-1")]
        told = official.nexusraven(tasks, [reply(BO), reply(ADA), reply(BO)])
        assert told == {
            "nexusraven_accuracy": 1 / 3,
            "nexusraven_accuracy_cve_cpe": 0,
            "nexusraven_accuracy_virustotal": 1 / 2,
        }


def test_no_rows() -> None:
    assert official.nexusraven([], []) == {}
    assert official.none([], []) == {}
    assert set(official.sealtools([], []).values()) == {0}
