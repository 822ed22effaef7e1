"""A real HTTP server that speaks OpenAI chat completions, well or badly."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Says = str | None | dict[str, Any] | Callable[[dict[str, Any]], "Says"]


class NaughtyServer:
    """Listens on a free port of this machine.

    Args:
        mode: a name in `MODES`.
        says: what the assistant says: a text, a whole message, or a function of the request body
            that gives one.
        finish: the `finish_reason`.

    `bodies` has the JSON it was sent, `headers` the headers, in order.
    """

    def __init__(self, mode: str, says: Says = "Paris", finish: str = "stop") -> None:
        self.answer = MODES[mode]
        self.says = says
        self.finish = finish
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Message] = []
        self.paths: list[str] = []
        self.closing = threading.Event()
        naughty = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                naughty.bodies.append(json.loads(body))
                naughty.headers.append(self.headers)
                naughty.paths.append(self.path)
                with suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
                    naughty.answer(naughty, self, json.loads(body))
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.host}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def completion(self, body: dict[str, Any], **instead: Any) -> bytes:
        said = self.says
        while callable(said):
            said = said(body)
        message = said if isinstance(said, dict) else {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        whole = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice]}
        return json.dumps({**whole, **instead}).encode()


def closed_port() -> str:
    """A base URL where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


Answer = Callable[[NaughtyServer, BaseHTTPRequestHandler, dict[str, Any]], None]
_JSON = "application/json"


def _send(
    to: BaseHTTPRequestHandler, body: bytes, status: int = 200, kind: str = _JSON, **headers: str
) -> None:
    _head(to, len(body), status, kind, **headers)
    to.wfile.write(body)


def _head(
    to: BaseHTTPRequestHandler, length: int, status: int = 200, kind: str = _JSON, **headers: str
) -> None:
    to.send_response(status)
    to.send_header("Content-Type", kind)
    to.send_header("Content-Length", str(length))
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), value)
    to.end_headers()


def _error(to: BaseHTTPRequestHandler, status: int, message: str, **headers: str) -> None:
    _send(to, json.dumps({"error": {"message": message}}).encode(), status, **headers)


def _good(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    _send(to, server.completion(body))


def _slow(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    server.closing.wait(30)


def _drip(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Always a byte before any read times out."""
    _head(to, 10_000)
    while not server.closing.wait(0.02):
        to.wfile.write(b" ")
        to.wfile.flush()


def _busy_once(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    if len(server.bodies) == 1:
        _error(to, 429, "too many requests", Retry_After="0.05")
    else:
        _good(server, to, body)


def _busy_long(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    _error(to, 429, "too many requests", Retry_After="60")


def _fail_first(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Refuses the first of several dialogues."""
    if len(server.bodies) == 1:
        _error(to, 418, "not this one")
    else:
        _good(server, to, body)


def _refusing(name: str) -> Answer:
    def answer(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if name in body:
            _error(to, 400, f"Unsupported parameter: '{name}'")
        else:
            _good(server, to, body)

    return answer


def _no_schema(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    if "response_format" in body:
        _error(to, 400, "the grammar engine is out of order")
    else:
        _good(server, to, body)


def _truncated(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    _send(to, server.completion(body)[:-20])


def _html(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    _send(to, b"<html>welcome</html>", kind="text/html")


def _huge(status: int) -> Answer:
    def answer(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        _head(to, 1 << 34, status)
        while not server.closing.is_set():
            to.wfile.write(b" " * (1 << 16))

    return answer


def _bomb(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    packed = gzip.compress(b" " * (1 << 21) + server.completion(body))
    _send(to, packed, Content_Encoding="gzip")


def _reset(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    _head(to, 1000)
    to.wfile.write(server.completion(body)[:10])
    to.wfile.flush()
    # no lingering: closing sends a reset, not an end
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    to.connection.close()
    to.wfile = to.rfile  # nothing is left to flush


def _echo(status: int) -> Answer:
    """Tells the key it was sent, in its words and in its headers."""

    def answer(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        key = to.headers["Authorization"]
        _error(to, status, f"{'x' * 250} what is {key}?\n{body['messages']}", X_Echo=key)

    return answer


def _echo_kind(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    _send(to, b"?", kind=to.headers["Authorization"])


def _elsewhere(server: NaughtyServer, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Redirects to where `says` tells."""
    _send(to, b"", 307, Location=str(server.says))


def _raw(body: Any) -> Answer:
    def answer(server: NaughtyServer, to: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        _send(to, body if isinstance(body, bytes) else json.dumps(body).encode())

    return answer


def _status(status: int, message: str = "no") -> Answer:
    return lambda server, to, body: _error(to, status, message)


MODES: dict[str, Answer] = {
    "good": _good,
    "slow": _slow,
    "drip": _drip,
    "401": _status(401),
    "404": _status(404),
    "500": _status(500, "it burns"),
    "busy-once": _busy_once,
    "busy-long": _busy_long,
    "fail-first": _fail_first,
    "no-schema": _no_schema,
    "no-temperature": _refusing("temperature"),
    "no-max-tokens": _refusing("max_tokens"),
    "400": _status(400, "never"),
    "truncated": _truncated,
    "html": _html,
    "deep": _raw(b"[" * 100_000),
    "no-object": _raw([1]),
    "no-choices": _raw({"choices": []}),
    "choices-wrong": _raw({"choices": {"0": "x"}}),
    "message-wrong": _raw({"choices": [{"message": "Paris"}]}),
    "content-wrong": _raw({"choices": [{"message": {"content": 7}}]}),
    "calls-wrong": _raw({"choices": [{"message": {"content": "x", "tool_calls": 7}}]}),
    "huge": _huge(200),
    "huge-500": _huge(500),
    "bomb": _bomb,
    "reset": _reset,
    "redirect": _elsewhere,
    "echo-400": _echo(400),
    "echo-401": _echo(401),
    "echo-500": _echo(500),
    "echo-kind": _echo_kind,
}
