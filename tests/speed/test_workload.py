"""What is timed can be answered, and substitution can vary it."""

from __future__ import annotations

import random

import pytest

from quickstudy import toolcalls
from quickstudy.augmentation.substitution import analyse, substitute
from quickstudy.model import LanguageModel
from quickstudy.speed import workload
from quickstudy.speed.workload import LENGTHS, Scenario

SCENARIOS = workload.scenarios()


def test_there_are_three_lengths_and_eight_different_lists() -> None:
    assert set(LENGTHS) < set(SCENARIOS)
    for name in LENGTHS:
        assert len(SCENARIOS[name].requests) >= 8
        assert len(SCENARIOS[name].practice) == workload.PRACTICE
    lists = {tuple(tool.name for tool in request.tools) for request in workload.different()}
    assert len(lists) == 8
    sizes = [len(str([t.to_openai() for t in SCENARIOS[n].requests[0].tools])) for n in LENGTHS]
    assert sizes[1] > 2.5 * sizes[0]
    assert sizes[2] > 1.8 * sizes[1]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)
def test_calls_are_valid_and_vary(scenario: Scenario) -> None:
    tools = scenario.requests[0].tools
    for request, calls in zip(scenario.requests, scenario.calls, strict=True):
        assert [toolcalls.problem(call, tools) for call in calls] == [None]
        found = analyse(request, calls)
        examples = substitute(request, found, 2, random.Random(0), lambda asks: [[] for _ in asks])
        assert len({example.user_text for example in examples} - {request.user_text}) >= 2
    for example in scenario.practice:
        assert [toolcalls.problem(call, tools) for call in example.tool_calls] == [None]


def test_practice_is_no_request() -> None:
    for scenario in SCENARIOS.values():
        asked = {request.user_text for request in scenario.requests}
        assert len(asked) == len(scenario.requests)
        assert not asked & {example.user_text for example in scenario.practice}


def test_lessons_follow_the_prefix(tiny: LanguageModel) -> None:
    scenario = SCENARIOS["short"]
    context = tiny.prefill(scenario.requests[0])
    lesson = workload.lessons(tiny, context, scenario.practice)[0]
    example = scenario.practice[0]
    whole = tiny.render(example.messages, scenario.requests[0].tools)
    assert [*context.prefix.ids, *lesson.turn] == whole
    assert '"name": "search_flights"' in tiny.decode(lesson.answer)
    assert lesson.answer[-1] == tiny.end_of_turn


def test_what_a_model_cannot_read_is_told(tiny: LanguageModel) -> None:
    assert workload.fits(tiny, SCENARIOS["short"], 100)
    assert not workload.fits(tiny, SCENARIOS["short"], 4096)
    assert not workload.fits(tiny, SCENARIOS["long"], 0)
