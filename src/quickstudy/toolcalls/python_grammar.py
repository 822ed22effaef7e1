"""Grammar rules for calls written as Python, from the tools' JSON Schemas.

JSON and Python spell strings and numbers alike here (`formats.python_literal`), so those are
left to llguidance's `%json` with all that it knows of patterns, formats and bounds; names,
lists, objects, `True`, `False` and `None` need rules of their own. Keywords that no rule
expresses are left to the verifier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from quickstudy.toolcalls.formats import bare, python_literal
from quickstudy.toolcalls.schema import closed
from quickstudy.types import Tool

_TEXT = ("minLength", "maxLength", "pattern", "format")
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def python_rules(tools: Sequence[Tool], options: Mapping[str, Any]) -> list[str]:
    """Rules for `python_call`, a call of any of the tools."""
    rules = _Rules(options)
    calls = []
    for i, tool in enumerate(tools):
        schema = closed(tool)
        inside = rules.members(schema, schema, f"py{i}", keyword=True)
        rules.lines.append(f'python_call_{i}: {json.dumps(bare(tool.name) + "(")} {inside} ")"')
        calls.append(f"python_call_{i}")
    return [f"python_call: {' | '.join(calls)}", *rules.lines, *rules.shared()]


class _Rules:
    """Collects rules; a schema's rule is made once, so that a schema may hold itself."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.lines: list[str] = []
        self.known: dict[str, str] = {}

    def shared(self) -> list[str]:
        """Any value at all."""
        pair = 'py_text ": " py_any'
        return [
            'py_any: py_text | py_number | "True" | "False" | "None"'
            ' | "[" (py_any (", " py_any)*)? "]"'
            f' | "{{" ({pair} (", " {pair})*)? "}}"',
            f"py_text: {self._json('string', {}, ())}",
            f"py_number: {self._json('number', {}, ())}",
            r"PY_KEY: /[A-Za-z_][A-Za-z0-9_]*/",
        ]

    def value(self, schema: Any, root: Mapping[str, Any]) -> str:
        """The name of the rule for a value under a schema."""
        for _ in range(32):  # a loop of references is any value
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                break
            schema = _looked_up(root, schema["$ref"])
        else:
            return "py_any"
        if not isinstance(schema, Mapping) or not schema:
            return "py_any"
        key = json.dumps([schema, root], sort_keys=True)
        if key not in self.known:
            self.known[key] = name = f"py_value_{len(self.known)}"
            self.lines.append(f"{name}: {self._expression(schema, root, name)}")
        return self.known[key]

    def _expression(self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str) -> str:
        if "const" in schema:
            return json.dumps(python_literal(schema["const"]))
        if schema.get("enum"):
            return " | ".join(json.dumps(python_literal(value)) for value in schema["enum"])
        for either in ("anyOf", "oneOf"):
            if schema.get(either):
                return " | ".join(self.value(option, root) for option in schema[either])
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list):
            return " | ".join(self.value({**schema, "type": one}, root) for one in kind) or "py_any"
        if kind == "string":
            return self._json("string", schema, _TEXT)
        if kind in ("integer", "number"):
            return self._json(kind, schema, _NUMBER)
        if kind == "boolean":
            return '"True" | "False"'
        if kind == "null":
            return '"None"'
        if kind == "array":
            return f'"[" {self._items(schema, root)} "]"'
        if kind == "object":
            return f'"{{" {self.members(schema, root, name, keyword=False)} "}}"'
        return "py_any"

    def _json(self, kind: str, schema: Mapping[str, Any], keywords: Sequence[str]) -> str:
        kept = {word: schema[word] for word in keywords if word in schema}
        return f"%json {json.dumps({'type': kind, **kept, 'x-guidance': self.options})}"

    def _items(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
        item = self.value(schema.get("items", {}), root)
        least = int(schema.get("minItems", 0))
        most = int(schema["maxItems"]) if "maxItems" in schema else None
        if most is not None and most <= 0:
            return '""'
        more = f"{{{max(0, least - 1)},{'' if most is None else most - 1}}}"
        rest = f' (", " {item}){more}' if most is None or most > 1 else ""
        return f"{item}{rest}" if least else f"({item}{rest})?"

    def members(
        self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str, *, keyword: bool
    ) -> str:
        """What stands between the brackets: members in the schema's order, then others.

        `name_i` is what may follow once something has been told: the members from i on.
        """
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        pairs = []
        for key, inner in properties.items():
            told = f"{bare(key)}=" if keyword else f"{json.dumps(key, ensure_ascii=False)}: "
            pairs.append((f"{json.dumps(told)} {self.value(inner, root)}", key in required))
        extra = self._extra(schema, root, keyword)
        rests = [f' (", " {extra})*' if extra else ""]
        for i in range(len(pairs) - 1, 0, -1):
            pair, needed = pairs[i]
            told = f'", " {pair}' if needed else f'(", " {pair})?'
            self.lines.append(f"{name}_{i}: {told}{rests[0]}")
            rests.insert(0, f" {name}_{i}")
        firsts = []
        for (pair, needed), rest in zip(pairs, rests, strict=False):
            firsts.append(f"{pair}{rest}")
            if needed:
                return f"({' | '.join(firsts)})"
        if extra:
            firsts.append(f'{extra} (", " {extra})*')
        return f"({' | '.join(firsts)})?" if firsts else '""'

    def _extra(self, schema: Mapping[str, Any], root: Mapping[str, Any], keyword: bool) -> str:
        """A member the schema does not name, if it allows any."""
        allowed = schema.get("additionalProperties", True)
        if "patternProperties" in schema:
            allowed = True
        if allowed is False:
            return ""
        return (
            f'PY_KEY "=" {self.value(allowed, root)}'
            if keyword
            else (f'py_text ": " {self.value(allowed, root)}')
        )


def _looked_up(root: Mapping[str, Any], reference: object) -> Any:
    """What a reference like `#/$defs/place` points to; any value where it points elsewhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return {}
    spot: Any = root
    for step in filter(None, reference[1:].split("/")):
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(spot, Mapping) or step not in spot:
            return {}
        spot = spot[step]
    return spot
