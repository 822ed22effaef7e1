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
from fractions import Fraction
from typing import Any

from quickstudy.augmentation import values
from quickstudy.grounding import amounts, contacts, names, numerals, temporal
from quickstudy.grounding.ground import Ground, Status, ground_call, whole
from quickstudy.grounding.phrases import Format, Kind, Phrase, Schema, items_of, schema_of
from quickstudy.types import Example, Message, Request, Tool, ToolCall

_COPIED: tuple[Kind, ...] = (temporal, amounts, names, contacts)

_TRIES = 3  # candidates for each example wanted

Writer = Callable[[Sequence[tuple[str, Tool, str]]], list[list[str]]]


@dataclass(frozen=True)
class Slot:
    """A value that stands in the request: where in the call, and how in the text.

    `item`: its place among the items, where the argument is a list or a text that joins one.
    """

    call: int
    name: str
    value: Any
    schema: Schema
    ground: Ground
    item: int | None = None
    joint: str = ""


@dataclass(frozen=True)
class Fresh:
    """A replacement: the words for the request, the value for the call, the phrase if it is one."""

    words: str
    value: Any
    phrase: Phrase | None = None


@dataclass(frozen=True)
class Analysis:
    """What of the draft can be varied. `kept`: for each call, the arguments left as they are."""

    slots: tuple[Slot, ...]
    kept: tuple[Mapping[str, Any], ...]
    calls: tuple[ToolCall, ...]


def analyse(request: Request, draft: Sequence[ToolCall]) -> Analysis:
    """Sorts the draft's arguments into varied, kept and left out."""
    slots: list[Slot] = []
    kept: list[dict[str, Any]] = []
    calls: list[ToolCall] = []
    for number, call in enumerate(draft):
        tool = request.tool(call.name)
        staying: dict[str, Any] = {}
        arguments: dict[str, Any] = {}
        grounds = ground_call(call, tool, request)
        for name, value in call.arguments.items():
            found = grounds[name]
            if found.status is Status.INVENTED and tool and droppable(name, tool):
                continue
            arguments[name] = value
            schema = schema_of(tool.properties if tool else {}, name)
            own = _slots(number, name, value, schema, found)
            slots += own
            if not own:
                staying[name] = value
        kept.append(staying)
        calls.append(ToolCall(call.name, arguments))
    wide = [slot for slot in slots if _holds_another(slot, slots)]
    for slot in wide:
        kept[slot.call][slot.name] = calls[slot.call].arguments[slot.name]
    varied = tuple(slot for slot in slots if slot not in wide)
    return Analysis(varied, tuple(kept), tuple(calls))


def droppable(name: str, tool: Tool) -> bool:
    """Whether an argument may be left out: anything the schema does not mark as required.

    A clearly invented value cannot be right, so leaving it out loses nothing even where a schema
    marks nothing as required. What did harm there was calling reworded values invented.
    """
    return name not in tool.required


def substitute(
    request: Request, analysis: Analysis, count: int, rng: random.Random, write: Writer
) -> Iterator[Example]:
    """Yields examples, to be taken until `count` hold; none if no value stands in the request.

    Some will be rejected, so there are up to three times as many.

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
    own = {slot.ground.surface.lower() for slot in analysis.slots}
    taken = set(own)
    for _ in range(_TRIES * count):
        swap: dict[str, Fresh] = {}
        calls = [dict(call.arguments) for call in analysis.calls]
        # longest first: a year inside a date follows the date
        for slot in sorted(analysis.slots, key=_widest_first):
            options = written.get((analysis.calls[slot.call].name, slot.name, str(slot.value)), [])
            used = own | {fresh.words.lower() for fresh in swap.values()}
            made = _follow(slot, swap) or _fresh(slot, options, taken, used, rng)
            if made is not None and not (slot.joint and slot.joint in str(made.value)):
                swap.setdefault(slot.ground.surface, made)
                taken.add(made.words.lower())
                _put(calls[slot.call], slot, made.value)
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


def _holds_another(slot: Slot, slots: Sequence[Slot]) -> bool:
    """Whether a text tells other values too, `call Ana at 9:30`: with those it varies by itself."""
    if not isinstance(slot.value, str) or slot.item is not None or _phrased(slot) is not None:
        return False
    words = slot.ground.surface
    inside = (other.ground.surface for other in slots if other.ground.surface != words)
    return any(re.search(whole(surface), words) for surface in inside if surface)


def _slots(call: int, name: str, value: Any, schema: Schema, found: Ground) -> list[Slot]:
    """The slots of one argument: one, or one for each item; none if it cannot be varied."""
    if not found.parts:
        return [Slot(call, name, value, schema, found)] if _varies(value, found) else []
    items = value.split(found.joint) if found.joint else value
    inner = schema if found.joint else items_of(schema)
    each = list(zip(items, found.parts, strict=True))
    if not all(_varies(item, part) for item, part in each):
        return []
    return [
        Slot(call, name, item, inner, part, place, found.joint)
        for place, (item, part) in enumerate(each)
    ]


def _varies(value: Any, found: Ground) -> bool:
    if found.phrase is not None:
        return found.phrase.meaning is not None
    return found.status is Status.STATED and bool(found.surface) and not isinstance(value, bool)


def _put(arguments: dict[str, Any], slot: Slot, value: Any) -> None:
    if slot.item is None:
        arguments[slot.name] = value
        return
    was = arguments[slot.name]
    items = was.split(slot.joint) if isinstance(was, str) else list(was)
    items[slot.item] = value
    arguments[slot.name] = slot.joint.join(map(str, items)) if isinstance(was, str) else items


def _asks(request: Request, analysis: Analysis, count: int) -> list[tuple[str, Tool, str]]:
    asks = []
    for slot in analysis.slots:
        tool = request.tool(analysis.calls[slot.call].name)
        text = isinstance(slot.value, str) and _phrased(slot) is None
        if tool and text and values.needs_model(slot.value, slot.schema, count):
            ask = (slot.name, tool, str(slot.value))
            if ask not in asks:
                asks.append(ask)
    return asks


def _phrased(slot: Slot) -> tuple[Phrase, Kind, Format | None] | None:
    """The phrase a slot is, also where it was copied in no format known; then without format."""
    found = slot.ground
    if found.phrase is not None and found.kind is not None:
        return (found.phrase, found.kind, found.format) if found.phrase.meaning else None
    if slot.value != found.surface or "enum" in slot.schema:
        return None
    for kind in _COPIED:
        for phrase in kind.find(found.surface):
            whole_value = phrase.surface == found.surface and phrase.meaning is not None
            if whole_value and (kind is not names or names.expected(slot.schema, phrase)):
                return phrase, kind, None
    return None


def _widest_first(slot: Slot) -> tuple[int, bool]:
    return -len(slot.ground.surface), slot.ground.phrase is None


def _follow(slot: Slot, swap: Mapping[str, Fresh]) -> Fresh | None:
    """What the slot becomes because its words are, or are part of, words already replaced."""
    surface = slot.ground.surface
    if surface in swap:
        return _again(slot, swap[surface])
    for longer, fresh in swap.items():
        moment = fresh.phrase and fresh.phrase.meaning
        if isinstance(moment, datetime) and re.search(whole(surface), longer):
            year = str(moment.year)
            if re.fullmatch(r"\d{4}", surface) and year in fresh.words:
                return Fresh(year, int(year) if isinstance(slot.value, int) else year)
    return None


def _again(slot: Slot, fresh: Fresh) -> Fresh:
    """The same fresh words, as this slot writes them."""
    if fresh.phrase is not None and slot.ground.kind is not None:
        return _written(slot.ground.kind, slot.ground.format, fresh.phrase) or fresh
    if isinstance(slot.value, str):
        return Fresh(fresh.words, fresh.words)
    return fresh


def _written(kind: Kind, format: Format | None, phrase: Phrase) -> Fresh | None:
    """The phrase with its value in this format; a copy of its words where there is none."""
    value = phrase.surface if format is None else kind.write(phrase, format)
    return None if value is None else Fresh(phrase.surface, value, phrase)


def _fresh(
    slot: Slot, written: list[str], taken: set[str], used: set[str], rng: random.Random
) -> Fresh | None:
    """Another value and its words; None if there is none, and then both stay as they are.

    Args:
        taken: words of other examples, avoided where there are others.
        used: words of this example and of the user's own, never taken again.
    """
    phrased = _phrased(slot)
    if phrased is not None:
        phrase, kind, format = phrased
        tries = (kind.fresh(phrase, rng) for _ in range(8))
        told = [made for made in tries if made is not None and made.surface.lower() not in used]
        told.sort(key=lambda made: made.surface.lower() in taken)
        return next((f for made in told if (f := _written(kind, format, made))), None)
    if isinstance(slot.value, str):
        text = values.fresh_text(slot.value, slot.schema, written, taken, rng)
        return None if text is None else Fresh(text, text)
    number = values.fresh_number(slot.value, slot.schema, rng)
    return Fresh(_number_like(slot.ground.surface, number), number)


def _number_like(surface: str, number: int | float) -> str:
    if "," in surface:
        return f"{number:,}"
    in_words = surface.isalpha() or "-" in surface[1:]
    spelt = numerals.spell(Fraction(number)) if in_words else None
    return spelt or str(number)


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
