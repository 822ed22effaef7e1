"""What /docs says beyond the request's own fields: answers and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

DESCRIPTION = (
    "OpenAI's chat completions over a small model that practises on the spot. A model's bare name"
    " answers by the server's method; NAME:base answers at once; other names say their method."
)
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_COMPLETION = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage", "quickstudy"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "chat.completion"},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "usage": {"type": "object"},
        "quickstudy": {
            "type": "object",
            "required": ["episode", "method", "certainty", "practised", "fallback", "examples"],
        },
    },
}
_EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
_MEANINGS = {
    400: "the request cannot be read, or wants what is not supported; `param` names it",
    401: "there is no key, or one that is not known",
    404: "there is no such model or path",
    405: "there is no such method at this path",
    408: "the body took too long to come",
    413: "the body is too large",
    429: "all places are taken, or the key has sent too many requests; see Retry-After",
    500: "a fault of the server",
    503: "the server is shutting down",
    504: "the answer took too long",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": {"application/json": {"schema": _ERROR}}}
    for status, meaning in _MEANINGS.items()
}
# said in place of the 422 that FastAPI would announce, and that is never sent
ERRORS["default"] = {
    "description": "an error",
    "content": {"application/json": {"schema": _ERROR}},
}
COMPLETIONS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the answer; with `stream`, pieces of it as server-sent events",
        "content": {
            "application/json": {"schema": _COMPLETION},
            "text/event-stream": {"schema": _EVENT},
        },
    },
    **ERRORS,
}


def openapi(app: FastAPI, models: Sequence[str]) -> dict[str, Any]:
    """The API's description, with the models that are served."""
    if not app.openapi_schema:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        made["components"]["schemas"]["ChatRequest"]["properties"]["model"]["enum"] = [*models]
        app.openapi_schema = made
    return app.openapi_schema
