"""References in a tool's JSON Schema: each must lead somewhere, here, and not in a circle.

A schema that meets itself inside a property or an item is recursion and legal: a tree of trees
ends where its data ends. A schema that meets itself without going into the data (`a` is `b`, `b`
is `a`) never ends. Nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from quickstudy.errors import RequestError

_REFERENCES = ("$ref", "$dynamicRef")
# where a schema applies other schemas to the very value that it is applied to
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLES = ("not", "if", "then", "else")


def check_references(schema: Mapping[str, Any], where: str) -> None:
    """Checks every reference of a schema that is valid under its metaschema.

    Raises:
        RequestError: names the reference that leads nowhere, away or in a circle.
    """
    resource = DRAFT202012.create_resource(schema)
    # the registry has no way to retrieve: what is not in it is Unresolvable
    resolver = REGISTRY.with_resource("", resource).resolver()
    _walk(schema, resolver, where, set())


def _walk(schema: Mapping[str, Any], resolver: Any, where: str, ended: set[int]) -> None:
    """Checks a schema and all that lie in it."""
    _follow(schema, resolver, where, {}, ended)
    older = schema.get("definitions")  # what $defs was called before; still widely written
    inside = older.values() if isinstance(older, Mapping) else ()
    for inner in [*DRAFT202012.subresources_of(schema), *inside]:
        if isinstance(inner, Mapping):
            resource = DRAFT202012.create_resource(inner)
            _walk(inner, resolver.in_subresource(resource), where, ended)


def _follow(schema: Any, resolver: Any, where: str, path: dict[int, str], ended: set[int]) -> None:
    """Goes along all that applies to the same value as `schema`; `path` tells how it came here.

    `ended` are schemas from which every way ends: going there again would tell nothing new, and
    thirty forks in a row have a thousand million ways.
    """
    if not isinstance(schema, Mapping) or id(schema) in ended:
        return
    if id(schema) in path:
        circle = " -> ".join(filter(None, path.values()))
        raise RequestError(
            f"{where}: the references {circle} lead in a circle that no value can end; let one of "
            "them stand inside a property or an item, or take it out"
        )
    for name, inner, at in _applied(schema, resolver, where):
        path[id(schema)] = name
        _follow(inner, at, where, path, ended)
    path.pop(id(schema), None)
    ended.add(id(schema))


def _applied(
    schema: Mapping[str, Any], resolver: Any, where: str
) -> Iterator[tuple[str, Any, Any]]:
    for key in _REFERENCES:
        reference = schema.get(key)
        if isinstance(reference, str):
            try:
                found = resolver.lookup(reference)
            except (Unresolvable, ValueError) as error:
                raise RequestError(_lost(reference, where)) from error
            if isinstance(found.contents, Mapping | bool):
                yield reference, found.contents, found.resolver
            else:
                raise RequestError(f"{where}: {key} {reference!r} leads to something no schema")
    inner = [part for key in _LISTS for part in schema.get(key, ())]
    inner += [schema[key] for key in _SINGLES if key in schema]
    inner += list(schema.get("dependentSchemas", {}).values())
    for part in inner:
        if isinstance(part, Mapping):
            resource = DRAFT202012.create_resource(part)
            yield "", part, resolver.in_subresource(resource)


def _lost(reference: str, where: str) -> str:
    if "://" in reference or reference.startswith("//"):
        return (
            f"{where}: $ref {reference!r} leads out of the schema, and nothing is fetched; put a "
            'copy under "$defs" and refer to "#/$defs/NAME"'
        )
    return f'{where}: $ref {reference!r} leads nowhere; define it, as in "#/$defs/NAME"'
