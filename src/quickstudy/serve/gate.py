"""Around every HTTP request: an id, the key, the size of the body, one line of log.

Plain ASGI, so that streams pass through as they come.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quickstudy.serve.faults import ApiError, internal
from quickstudy.serve.keys import Client, Keys
from quickstudy.serve.logs import REQUEST_ID
from quickstudy.serve.metrics import Metrics

log = logging.getLogger(__name__)
BODY_SECONDS = 30.0  # until a body has to be here
_PATHS = ("/v1/chat/completions", "/v1/models", "/docs", "/openapi.json")
_IDENTITY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass
class Visit:
    """One HTTP request, as far as logs and metrics are concerned."""

    id: str
    client: Client | None = None
    status: int = 0
    path: str = "none"  # how the answer came about: base, sure, practised, fallback
    arrived: float = field(default_factory=time.monotonic)
    told: dict[str, Any] = field(default_factory=dict)  # for the log; nothing a request says


class Gate:
    """ASGI middleware. Everything under /v1 wants a key, if there are keys."""

    def __init__(self, app: ASGIApp, keys: Keys, metrics: Metrics, max_body: int) -> None:
        self.app, self.keys, self.metrics, self.max_body = app, keys, metrics, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        visit = Visit(given if _IDENTITY.fullmatch(given) else secrets.token_hex(12))
        scope.setdefault("state", {})["visit"] = visit
        token = REQUEST_ID.set(visit.id)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = visit.id
            await send(message)

        try:
            try:
                if scope["path"].startswith("/v1/"):
                    visit.client = self.keys.client(headers.get("authorization"))
                    receive = await self._whole_body(headers, receive)
                await self.app(scope, receive, answer)
            except ApiError as error:
                await error.response()(scope, receive, answer)
            except Exception:
                log.exception("a request failed")
                if visit.status:  # the answer has begun
                    raise
                await internal(visit.id).response()(scope, receive, answer)
        finally:
            self._record(scope, visit)
            REQUEST_ID.reset(token)

    async def _whole_body(self, headers: Headers, receive: Receive) -> Receive:
        """Reads the body, and gives it on as one message.

        Raises:
            ApiError: if it is too large, too slow, or its sender has left.
        """
        too_large = ApiError(413, f"the body has more than {self.max_body} bytes")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_body:
            raise too_large
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "the connection was closed")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.max_body:
                        raise too_large
        except TimeoutError:
            raise ApiError(408, "the body took too long to come") from None
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def give() -> Message:
            return whole.pop() if whole else await receive()

        return give

    def _record(self, scope: Scope, visit: Visit) -> None:
        seconds = time.monotonic() - visit.arrived
        key = visit.client.name if visit.client else "none"
        status = visit.status or 499  # whoever asked has left
        if scope["path"] == "/v1/chat/completions":
            self.metrics.ended(key, status, visit.path, seconds, visit.id)
        fields = {
            "method": scope["method"],
            "path": scope["path"] if scope["path"] in _PATHS else "?",  # any text may stand there
            "status": status,
            "key": key,
            "seconds": round(seconds, 4),
            **visit.told,
        }
        quiet = scope["path"].startswith(("/health/", "/metrics"))
        log.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": fields})
