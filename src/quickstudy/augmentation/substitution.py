"""Substitution: the user's own words with other values in them.

Where a value of the draft stands in the request, put a fresh value of the same kind in both the
request and the call. Clearly invented optional arguments are left out of the call, so practice
teaches to leave them out. Values that are neither stay as the draft has them, words and all.
No request has to be written, so nothing a small model writes badly gets in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from quickstudy.augmentation import temporal, values
from quickstudy.augmentation.grounding import NUMBER_WORDS, Ground, Status, ground_all, whole
from quickstudy.types import Example, Message, Request, Tool, ToolCall

Writer = Callable[[Sequence[tuple[str, Tool, str]]], list[list[str]]]


@dataclass(frozen=True)
class Slot:
    """A value that stands in the request: where in the call, and how in the text."""

    call: int
    name: str
    value: Any
    schema: Mapping[str, Any]
    ground: Ground


@dataclass(frozen=True)
class Fresh:
    """A replacement: the words for the request, the value for the call, the moment if it is one."""

    words: str
    value: Any
    moment: datetime | None = None


@dataclass(frozen=True)
class Analysis:
    """What of the draft can be varied. `kept`: for each call, the arguments left as they are."""

    slots: tuple[Slot, ...]
    kept: tuple[Mapping[str, Any], ...]
    calls: tuple[ToolCall, ...]


def analyse(request: Request, draft: Sequence[ToolCall]) -> Analysis:
    """Sorts the draft's arguments into varied, kept and left out."""
    slots: list[Slot] = []
    kept: list[Mapping[str, Any]] = []
    calls: list[ToolCall] = []
    text = request.user_text
    for number, call in enumerate(draft):
        tool = request.tool(call.name)
        staying: dict[str, Any] = {}
        arguments: dict[str, Any] = {}
        grounds = ground_all(call.arguments, tool.properties if tool else {}, text)
        for name, value in call.arguments.items():
            raw = tool.properties.get(name) if tool else None
            schema = raw if isinstance(raw, Mapping) else {}
            found = grounds[name]
            if found.status is Status.INVENTED and tool and droppable(name, tool):
                continue
            arguments[name] = value
            if _varies(value, found):
                slots.append(Slot(number, name, value, schema, found))
            else:
                staying[name] = value
        kept.append(staying)
        calls.append(ToolCall(call.name, arguments))
    return Analysis(tuple(slots), tuple(kept), tuple(calls))


def droppable(name: str, tool: Tool) -> bool:
    """Whether an argument may be left out: anything the schema does not mark as required.

    A clearly invented value cannot be right, so leaving it out loses nothing even where a schema
    marks nothing as required. What did harm there was calling reworded values invented.
    """
    return name not in tool.required


def substitute(
    request: Request, analysis: Analysis, count: int, rng: random.Random, write: Writer
) -> Iterator[Example]:
    """Yields up to `count` examples; none if no value stands in the request.

    Args:
        write: asks the model for other values: for each (argument, tool, value), alternatives.
    """
    if not analysis.slots:
        return
    asks = _asks(request, analysis, count)
    written = (
        dict(
            zip([(tool.name, name, value) for name, tool, value in asks], write(asks), strict=True)
        )
        if asks
        else {}
    )
    taken = {slot.ground.surface.lower() for slot in analysis.slots}
    for _ in range(count):
        swap: dict[str, Fresh] = {}
        calls = [dict(call.arguments) for call in analysis.calls]
        # longest first: a year inside a date follows the date
        for slot in sorted(analysis.slots, key=_widest_first):
            options = written.get((analysis.calls[slot.call].name, slot.name, str(slot.value)), [])
            fresh = _follow(slot, swap) or _fresh(slot, options, taken, rng)
            if fresh is not None:
                swap.setdefault(slot.ground.surface, fresh)
                taken.add(fresh.words.lower())
                calls[slot.call][slot.name] = fresh.value
        words = {surface: fresh.words for surface, fresh in swap.items()}
        # a value kept as the draft has it may tell the user's other values in passing
        for kept, arguments in zip(analysis.kept, calls, strict=True):
            arguments.update(_swapped(dict(kept), words))
        yield Example(
            tuple(_told(message, words) for message in request.messages),
            tuple(
                ToolCall(call.name, arguments)
                for call, arguments in zip(analysis.calls, calls, strict=True)
            ),
            "substitution",
        )


def _varies(value: Any, found: Ground) -> bool:
    if isinstance(value, list) or not found.surface:
        return False
    if found.phrase is not None:
        return found.phrase.moment is not None
    return found.status is Status.STATED and not isinstance(value, bool)


def _asks(request: Request, analysis: Analysis, count: int) -> list[tuple[str, Tool, str]]:
    asks = []
    for slot in analysis.slots:
        tool = request.tool(analysis.calls[slot.call].name)
        text = isinstance(slot.value, str) and _phrase(slot) is None
        if tool and text and values.needs_model(slot.value, slot.schema, count):
            ask = (slot.name, tool, str(slot.value))
            if ask not in asks:
                asks.append(ask)
    return asks


def _phrase(slot: Slot) -> temporal.Phrase | None:
    """The date or time a slot is, also where it was copied in no format known here."""
    phrase, surface = slot.ground.phrase, slot.ground.surface
    if phrase is None and slot.value == surface:
        phrase = next((p for p in temporal.find(surface) if p.surface == surface), None)
    return phrase if phrase and phrase.moment is not None else None


def _widest_first(slot: Slot) -> tuple[int, bool]:
    return -len(slot.ground.surface), slot.ground.phrase is None


def _follow(slot: Slot, swap: Mapping[str, Fresh]) -> Fresh | None:
    """What the slot becomes because its words are, or are part of, words already replaced."""
    surface = slot.ground.surface
    if surface in swap:
        return _again(slot, swap[surface])
    for longer, fresh in swap.items():
        if re.search(whole(surface), longer) and fresh.moment is not None:
            year = str(fresh.moment.year)
            if re.fullmatch(r"\d{4}", surface) and year in fresh.words:
                return Fresh(year, int(year) if isinstance(slot.value, int) else year)
    return None


def _again(slot: Slot, fresh: Fresh) -> Fresh:
    """The same fresh words, as this slot writes them."""
    if fresh.moment is not None and slot.ground.phrase is not None:
        return Fresh(fresh.words, _formatted(slot, fresh.words, fresh.moment), fresh.moment)
    if isinstance(slot.value, str):
        return Fresh(fresh.words, fresh.words)
    return fresh


def _fresh(slot: Slot, written: list[str], taken: set[str], rng: random.Random) -> Fresh | None:
    """Another value and its words; None if there is none, and then both stay as they are."""
    surface, phrase = slot.ground.surface, _phrase(slot)
    if phrase is not None:
        told = temporal.fresh(phrase, rng)
        return told and Fresh(told[0], _formatted(slot, *told), told[1])
    if isinstance(slot.value, str):
        text = values.fresh_text(slot.value, slot.schema, written, taken, rng)
        if text is None:
            return None
        if "enum" in slot.schema:
            same_letters = {str.upper: surface.isupper(), str.title: surface.istitle()}
            if surface != slot.value:
                for write, fits in same_letters.items():
                    if fits:
                        return Fresh(write(text), text)
            return Fresh(text, text)
        return Fresh(text, text)
    number = values.fresh_number(slot.value, slot.schema, rng)
    return Fresh(_number_like(surface, number), number)


def _formatted(slot: Slot, words: str, moment: datetime) -> str:
    # in the format the schema states, whatever the draft wrote: that is the lesson
    stated = temporal.stated_format(slot.schema)
    if stated is None and slot.value == slot.ground.surface:
        return words  # it was copied, and copying is what practice must teach
    if stated is None:
        phrase = slot.ground.phrase
        said = temporal.formats_of(str(slot.value), None)
        stated = next(f for f in said if phrase and temporal.says(str(slot.value), f, phrase))
    return moment.strftime(stated)


def _number_like(surface: str, number: int | float) -> str:
    if "," in surface:
        return f"{number:,}"
    in_words = surface.isalpha() or "-" in surface[1:]
    spelt = {float(value): word for word, value in NUMBER_WORDS.items()}
    return spelt.get(number, str(number)) if in_words else str(number)


def _told(message: Message, words: Mapping[str, str]) -> Message:
    if message.role == "system":
        return message
    calls = tuple(ToolCall(c.name, _swapped(dict(c.arguments), words)) for c in message.tool_calls)
    return replace(message, content=_swapped(message.content, words), tool_calls=calls)


def _swapped(value: Any, words: Mapping[str, str]) -> Any:
    """A text, or a JSON value's texts, with all surfaces replaced.

    All at once, so that no fresh value is replaced again.
    """
    if isinstance(value, dict):
        return {key: _swapped(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_swapped(item, words) for item in value]
    if not isinstance(value, str) or not words:
        return value
    longest_first = sorted(words, key=len, reverse=True)
    pattern = "|".join(whole(surface) for surface in longest_first)
    return re.sub(pattern, lambda match: words[match.group()], value)
