"""The report: what it says, and that nothing a model wrote can act in it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from quickstudy.evals.demo_report import write_report
from quickstudy.types import (
    Answer,
    Candidate,
    Episode,
    Example,
    Message,
    Rejected,
    Reply,
    ToolCall,
)

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}</style>"


def example(text: str, **arguments: Any) -> Example:
    return Example((Message("user", text),), (ToolCall("set_heat", arguments),), "substitution")


def unsure() -> dict[str, Any]:
    right = ToolCall("set_heat", {"room": "bedroom", "degrees": 21})
    episode = Episode(
        method="tt-si",
        certainty=0.41,
        threshold=0.9,
        practised=True,
        fallback=None,
        draft=Reply("", (ToolCall("set_heat", {"degrees": 21, "room": "21"}),)),
        candidates=(Candidate("bedroom", -0.5), Candidate("attic", float("-inf"))),
        examples=(example("Make the kitchen 18 degrees.", room="kitchen", degrees=18),),
        rejected=(Rejected(example("Warmer!", degrees=25), "25 is not in the request"),),
        losses=(0.312, 0.021),
        seconds={"prefill": 2.0, "draft": 1.5, "practice": 4.0, "reset": 0.001},
    )
    return {
        **Answer("", (right,), episode, "home-1").to_json(),
        "request": "Make the bedroom 21 degrees.",
        "expected": [right.to_json()],
        "draft_correct": False,
        "correct": True,
    }


def sure() -> dict[str, Any]:
    reply = Reply("You are welcome!")
    episode = Episode(
        "tt-si", 0.98, 0.9, False, None, reply, seconds={"prefill": 1.0, "draft": 0.25}
    )
    answer = Answer(reply.content, (), episode, 7)
    return {**answer.to_json(), "request": "Thanks!", "draft_correct": True, "correct": True}


def fallen_back() -> dict[str, Any]:
    line = unsure()
    line["episode"] |= {"practised": False, "fallback": "no example survived", "losses": []}
    return line | {"draft_correct": True, "correct": False}


def render(path: Path, lines: Sequence[Mapping[str, Any]], **changes: Any) -> str:
    given: dict[str, Any] = {
        "title": "Household demo",
        "model": "SmolLM2-135M",
        "settings": {"learning": {"rank": 16}, "seed": 3},
        "note": "One seed.",
    }
    write_report(lines, path / "report.html", **(given | changes))
    return (path / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a browser would see: elements, attributes and words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)


def test_tells_the_whole_cycle(tmp_path: Path) -> None:
    text = Page(render(tmp_path, [unsure(), sure()])).text
    for said in (
        "Household demo",
        "SmolLM2-135M",
        "tt-si",
        "One seed.",
        "learning.rank 16",
        "Make the bedroom 21 degrees.",
        "certainty 0.41, threshold 0.90",
        "practised on 1 example",
        "✓ fixed",
        "Make the kitchen 18 degrees.",
        'room: "kitchen"',
        "made by substitution",
        "Rejected: 25 is not in the request",
        "100.0%, log p −0.50",
        "0.0%, log p −∞",
        "practice step",
        "0.312",
        "total 7.5 s",
        "reset <0.01 s",
        "You are welcome!",
    ):
        assert said in text


def test_headline_counts_fixed_and_broken(tmp_path: Path) -> None:
    lines = [unsure(), unsure(), sure(), fallen_back(), {"id": 9, "error": "boom"}]
    text = Page(render(tmp_path, lines)).text
    assert "Requests 5 1 failed with an error" in text
    assert "Practised 2 3 unsure of 4" in text
    assert "Draft right → final right 2 → 3 of 4 graded: 2 fixed, 1 broken" in text
    assert "Median time, sure 1.2 s over 1 request " in text
    assert "Median time, unsure 7.5 s over 3 requests" in text
    assert "without practice no example survived" in text


def test_ungraded_is_not_wrong(tmp_path: Path) -> None:
    line = unsure()
    del line["correct"], line["draft_correct"], line["episode"]["seconds"]
    text = Page(render(tmp_path, [line])).text
    assert not re.search(r"Draft right|wrong|✗|Median time", text)


def test_differences_are_marked_and_argument_order_is_none(tmp_path: Path) -> None:
    html = render(tmp_path, [unsure()])
    assert re.findall(r"<(?:del|ins)>.*?</(?:del|ins)>", html) == [
        "<del><i>−</i>  room: &#34;21&#34;</del>",
        "<ins><i>+</i>  room: &#34;bedroom&#34;</ins>",
    ]


def poisoned(value: Any) -> Any:
    if isinstance(value, str):
        return ATTACK
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    if isinstance(value, dict):
        poison = {key: poisoned(item) for key, item in value.items()}
        return poison | {ATTACK: ATTACK} if "room" in value else poison
    return value


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    lines = [poisoned(line) for line in (unsure(), sure(), fallen_back(), {"id": "", "error": ""})]
    html = render(
        tmp_path, lines, title=ATTACK, model=ATTACK, note=ATTACK, settings={ATTACK: ATTACK}
    )
    page = Page(html)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_no_template_lets_text_act() -> None:
    templates = list((resources.files("quickstudy.evals") / "templates").iterdir())
    assert templates
    for template in templates:
        assert not re.search(r"\|\s*safe\b|autoescape", template.read_text("utf-8"))


def test_is_one_file_without_network(tmp_path: Path) -> None:
    html = render(tmp_path, [unsure(), sure()])
    assert not re.search(r"https?:|\burl\(|@import|\bsrc=|<link", html)


def test_every_link_has_its_anchor(tmp_path: Path) -> None:
    attributes = Page(render(tmp_path, [unsure(), sure(), fallen_back()])).attributes
    links = [value for name, value in attributes if name == "href"]
    assert links == [f"#{value}" for value in ("request-1", "request-2", "request-3")]
    ids = [value for name, value in attributes if name == "id"]
    assert sorted(map(str, ids)) == ["request-1", "request-2", "request-3"]


def test_no_requests(tmp_path: Path) -> None:
    text = Page(render(tmp_path, [], settings={}, note="")).text
    assert "This run holds no requests." in text
    assert "Requests 0" in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": "api-3", "error": "RequestError: no tools"}, "Request api-3: RequestError: no"),
        ({"id": None, "error": ""}, "failed without a message"),
    ],
)
def test_error_lines_are_shown(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    assert said in Page(render(tmp_path, [line])).text


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the keys of a line are, at any depth."""
    if isinstance(value, list):
        return [path for i, item in enumerate(value) for path in paths(item, (*here, i))]
    if not isinstance(value, dict):
        return []
    below = [path for key, item in value.items() for path in paths(item, (*here, key))]
    return [(*here, key) for key in value] + below


def test_missing_and_null_keys_do_no_harm(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{}]
    for *above, key in paths(unsure()):
        absent, null = unsure(), unsure()
        for line in (absent, null):
            owner: Any = line
            for step in above:
                owner = owner[step]
            owner[key] = None
            if line is absent:
                del owner[key]
        lines += [absent, null]
    text = Page(render(tmp_path, lines)).text
    assert f"Requests {len(lines)} Practised" in text
    assert "Requests 1 Practised 0 no certainty was measured" in Page(render(tmp_path, [{}])).text


def test_odd_numbers_and_half_characters(tmp_path: Path) -> None:
    line = unsure()
    line["episode"] |= {"losses": [0.5, float("nan"), None], "certainty": -0.2}
    line["content"] = "half an emoji \ud83d"
    text = Page(render(tmp_path, [line])).text
    assert "2 steps without a finite loss." in text
    assert "half an emoji ?" in text


def test_notes_repairs_and_answers_in_words_are_told(tmp_path: Path) -> None:
    line = unsure()
    line["episode"] |= {"notes": ["the teacher <b>left</b>"], "repaired": ["degrees: made 21"]}
    line["episode"]["examples"][0] |= {"content": "It is warm.", "tool_calls": []}
    text = Page(render(tmp_path, [line])).text
    assert "Note: the teacher <b>left</b>" in text
    assert "Repaired: degrees: made 21" in text
    assert "It is warm." in text


def test_equal_input_gives_equal_bytes_and_stays_as_it_was(tmp_path: Path) -> None:
    lines = [unsure(), sure(), {"id": 1, "error": "boom"}]
    before = copy.deepcopy(lines)
    assert render(tmp_path, lines) == render(tmp_path, lines)
    assert lines == before
