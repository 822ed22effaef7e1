"""What is wrong with a call under its tool's JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import regex
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from jsonschema_specifications import REGISTRY

from quickstudy.types import Tool, ToolCall

PATTERN_SECONDS = 0.2  # a pattern like (a|aa)+$ takes longer than anybody lives on a wrong value


def problem(call: ToolCall, tools: Sequence[Tool]) -> str | None:
    """None if the call is valid under the listed tools, else what is wrong with it.

    The formats that constrained decoding enforces (dates, times, addresses, ids) are checked.
    """
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return f"no tool is called {call.name!r}"
    unknown = [name for name in call.arguments if name not in tool.properties]
    if unknown and not {"additionalProperties", "patternProperties"} & tool.parameters.keys():
        return f"{call.name} has no argument {unknown[0]!r}"
    try:
        text = json.dumps(closed(tool), sort_keys=True)
        error = best_match(_validator(text).iter_errors(dict(call.arguments)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except TimeoutError:
        return f"the schema of {call.name} cannot be applied: a pattern in it takes too long"
    # A schema with broken references is a fact about it, not a crash. Where a loop of references
    # ends the stack, Rust code under `referencing` may panic, and that is no Exception.
    except BaseException as failure:
        return f"the schema of {call.name} cannot be applied: {failure}"
    return None if error is None else f"{call.name}: {error.message}"


def closed(tool: Tool) -> dict[str, Any]:
    """The tool's schema; it knows no other arguments unless it says so."""
    return {"additionalProperties": False, "type": "object", **tool.parameters}


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    # the default registry would fetch remote references, file:// among them
    return _Validator(json.loads(schema), registry=REGISTRY, format_checker=_FORMATS)


def _found(pattern: str, text: str) -> bool:
    return regex.search(pattern, text, timeout=PATTERN_SECONDS) is not None


def _pattern(_: Any, pattern: str, value: object, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _found(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], value: object, _: Any
) -> Iterator[ValidationError]:
    for pattern, schema in patterns.items() if isinstance(value, dict) else ():
        for key, item in value.items() if isinstance(value, dict) else ():
            if _found(pattern, key):
                yield from validator.descend(item, schema, path=key, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, value: object, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    patterns = schema.get("patternProperties", {})
    for key, item in value.items():
        if key in schema.get("properties", {}) or any(_found(p, key) for p in patterns):
            continue
        if allowed is False:
            yield ValidationError(f"{key!r} was unexpected")
        elif isinstance(allowed, Mapping):
            yield from validator.descend(item, allowed, path=key)


def _unevaluated_properties(
    validator: Any, allowed: Any, value: object, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    # jsonschema matches patterns here without a time limit; left out, a key too many may pass
    if "patternProperties" not in json.dumps(validator.schema):
        yield from Draft202012Validator.VALIDATORS["unevaluatedProperties"](
            validator, allowed, value, schema
        )


_Validator = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "unevaluatedProperties": _unevaluated_properties,
    },
)

# --- formats: what llguidance's grammar enforces and jsonschema can check without more packages

_FORMATS = FormatChecker(formats=["date", "email", "ipv4", "ipv6", "uuid"])
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([zZ]|[+-]([01]\d|2[0-3]):[0-5]\d)"
_DATE_FORMAT = FormatChecker.checkers["date"][0]


@_FORMATS.checks("time")
def _is_time(value: object) -> bool:
    """RFC 3339's full-time: an offset is part of it."""
    return not isinstance(value, str) or regex.fullmatch(_CLOCK, value) is not None


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    """RFC 3339's date-time."""
    if not isinstance(value, str):
        return True
    return value[10:11] in ("T", "t", " ") and _is_time(value[11:]) and _DATE_FORMAT(value[:10])
