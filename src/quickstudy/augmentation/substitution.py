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
from typing import Any

from quickstudy.augmentation import temporal, values
from quickstudy.augmentation.grounding import NUMBER_WORDS, Ground, Status, ground_all, numbers
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
            if found.status is Status.INVENTED and tool and droppable(name, value, tool):
                continue
            arguments[name] = value
            if _varies(value, found):
                slots.append(Slot(number, name, value, schema, found))
            else:
                staying[name] = value
        kept.append(staying)
        calls.append(ToolCall(call.name, arguments))
    return Analysis(tuple(slots), tuple(kept), tuple(calls))


def droppable(name: str, value: Any, tool: Tool) -> bool:
    """Whether an invented argument may be left out.

    Where the schema marks what is required, all else. Where it marks nothing, that an argument
    is optional is a guess, so only values copied from the tool's own description, or empty ones,
    count as invented.
    """
    if "required" in tool.parameters:
        return name not in tool.required
    if value in (None, "", [], {}):
        return True
    schema = tool.properties.get(name)
    described = str(schema) if isinstance(schema, Mapping) else ""
    return isinstance(value, str) and value.lower() in described.lower()


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
    written = dict(zip([a[0:1] + a[2:] for a in asks], write(asks), strict=True)) if asks else {}
    taken = {surface.lower() for surface in _surfaces(analysis)}
    for _ in range(count):
        swap: dict[str, str] = {}
        calls = [dict(call.arguments) for call in analysis.calls]
        for slot in sorted(analysis.slots, key=lambda s: -len(s.ground.surface)):
            fresh = _fresh(slot, swap, written.get((slot.name, str(slot.value)), []), taken, rng)
            if fresh is None:
                break
            swap[slot.ground.surface], calls[slot.call][slot.name] = fresh
            taken.add(fresh[0].lower())
        else:
            yield Example(
                tuple(_swapped(message, swap) for message in request.messages),
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
    return found.status is Status.STATED and (isinstance(value, str) or not isinstance(value, bool))


def _surfaces(analysis: Analysis) -> set[str]:
    return {slot.ground.surface for slot in analysis.slots}


def _asks(request: Request, analysis: Analysis, count: int) -> list[tuple[str, Tool, str]]:
    asks = []
    for slot in analysis.slots:
        tool = request.tool(analysis.calls[slot.call].name)
        text = isinstance(slot.value, str) and slot.ground.phrase is None
        if tool and text and values.needs_model(slot.value, slot.schema, count):
            ask = (slot.name, tool, str(slot.value))
            if ask not in asks:
                asks.append(ask)
    return asks


def _fresh(
    slot: Slot,
    swap: Mapping[str, str],
    written: list[str],
    taken: set[str],
    rng: random.Random,
) -> tuple[str, Any] | None:
    """(words for the request, value for the call); None if no fresh value was found."""
    surface, phrase = slot.ground.surface, slot.ground.phrase
    if phrase is not None:
        stated = temporal.stated_format(slot.schema)
        words, moment = temporal.fresh(phrase, rng)
        # in the format the schema states, whatever the draft wrote: that is the lesson
        said = temporal.formats_of(str(slot.value), None)
        format = stated or next(f for f in said if temporal.says(str(slot.value), f, phrase))
        return words, moment.strftime(format)
    if isinstance(slot.value, str):
        text = swap.get(surface) or values.fresh_text(slot.value, slot.schema, written, taken, rng)
        if text is None:
            return None
        if "enum" in slot.schema:
            return (text.capitalize() if surface[:1].isupper() else text), text
        return text, text
    number = values.fresh_number(slot.value, slot.schema, rng)
    if surface in swap:
        number = type(slot.value)(dict(numbers(swap[surface])).get(swap[surface], number))
    return _number_like(surface, number), number


def _number_like(surface: str, number: int | float) -> str:
    if "," in surface:
        return f"{number:,}"
    spelt = {float(value): word for word, value in NUMBER_WORDS.items()}
    return (
        spelt.get(number, str(number)) if surface.isalpha() or "-" in surface[1:] else str(number)
    )


def _swapped(message: Message, swap: Mapping[str, str]) -> Message:
    """The message with all surfaces replaced at once, so that no fresh value is replaced again."""
    if message.role == "system":
        return message
    longest_first = sorted(swap, key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(s)}(?!\w)" for s in longest_first))
    return replace(message, content=pattern.sub(lambda m: swap[m.group()], message.content))
