"""An OpenAI-compatible server that is not trusted.

Every way in which it can fail becomes `TeacherFailed` with one line of text. The key is read
from the environment for each call and kept nowhere; neither prompts nor the key are logged. An
answer is bounded in time and in bytes, and redirects are not followed: the key goes to one host.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

import httpx2
import openai

from quickstudy.decoding import Deadline
from quickstudy.errors import BudgetSpent, ConfigError, PracticeFailed, TeacherFailed
from quickstudy.teaching.wire import Said, read_completion

_AT_ONCE = 8  # answers awaited together
_CONNECT_SECONDS = 5.0  # a host that is there says so at once, however long its model thinks
_MOST_BYTES = 1 << 20  # of one answer
_NO_KEY = "none"  # the client insists on a key, local servers do not
_OPTIONAL = ("response_format", "temperature", "seed", "max_tokens")

T = TypeVar("T")

# at DEBUG it logs the headers of answers, in which a server might echo the key
logging.getLogger("httpcore2").setLevel(logging.INFO)


class Endpoint:
    """Chat completions of one model at one base URL."""

    def __init__(
        self, url: str, model: str, api_key_env: str, timeout: float, retries: int
    ) -> None:
        """Connects to nothing yet; see `TeacherConfig` for the settings.

        Raises:
            ConfigError: if the URL is none, or holds what belongs elsewhere.
        """
        self.url = base_url(url)
        self.model = model
        self.api_key_env = api_key_env
        self.timeout = timeout
        self.retries = retries
        self._refused: set[str] = set()  # of _OPTIONAL, what this server does not take

    def ask(
        self, bodies: Sequence[dict[str, Any]], deadline: Deadline
    ) -> list[Said | PracticeFailed]:
        """Sends request bodies (without the model's name) together; one outcome each.

        Raises:
            TeacherFailed: if none can be sent.
            BudgetSpent: if the deadline has passed.
        """
        deadline.check()
        return deadline.result(_run(self._ask_all(bodies, deadline))) if bodies else []

    async def _ask_all(
        self, bodies: Sequence[dict[str, Any]], deadline: Deadline
    ) -> list[Said | PracticeFailed]:
        key = self._key()
        if not (key.isascii() and key.isprintable()):
            raise self.failed(f"got no key: what {self.api_key_env} holds fits no HTTP header")
        at_once = asyncio.Semaphore(_AT_ONCE)
        timeout = httpx2.Timeout(self.timeout, connect=min(self.timeout, _CONNECT_SECONDS))
        # unlike openai's own client, this one follows no redirects
        http = httpx2.AsyncClient(
            verify=_trusted(), timeout=timeout, event_hooks={"response": [_bound]}
        )
        async with openai.AsyncOpenAI(
            api_key=key,
            base_url=self.url,
            max_retries=self.retries,
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},  # no bombs
        ) as client:

            async def ask(body: dict[str, Any]) -> Said | PracticeFailed:
                async with at_once:
                    try:
                        return await self._ask_one(client, body, deadline)
                    except PracticeFailed as failure:
                        return failure

            return await asyncio.gather(*map(ask, bodies))

    async def _ask_one(
        self, client: openai.AsyncOpenAI, body: dict[str, Any], deadline: Deadline
    ) -> Said:
        left = self.timeout if deadline.at is None else deadline.at - time.monotonic()
        try:
            async with asyncio.timeout(min(left, self.timeout)):
                response = await self._send(client, body)
        except TimeoutError:
            if left < self.timeout:
                raise BudgetSpent("the time budget is spent") from None
            what = f"gave no answer within {self.timeout:g} s (teacher.timeout)"
        except openai.APIStatusError as error:
            what = self._status(error.response)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            what = f"cannot be reached ({str(cause) or type(cause).__name__}); is it running?"
        except _BadBody as error:
            what = str(error)
        else:
            return self._read(response)
        # raised out here it has no context, in which the server's words might hold the key
        raise self.failed(what)

    async def _send(self, client: openai.AsyncOpenAI, body: dict[str, Any]) -> httpx2.Response:
        """Sends a body; again without what the server refuses (HTTP 400 or 422) to take."""
        refused = set(self._refused)
        while True:
            sent = {name: value for name, value in body.items() if name not in refused}
            if "max_tokens" in refused:  # OpenAI's reasoning models know only this name
                sent["max_completion_tokens"] = body["max_tokens"]
            try:
                create = client.chat.completions.with_raw_response.create
                response: httpx2.Response = (await create(model=self.model, **sent)).http_response
                self._refused |= refused  # a request that fails all the same tells nothing
                return response
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                named = [n for n in _OPTIONAL if n in sent and n in error.response.text]
                if not named and "response_format" not in sent:
                    raise
                refused.add(named[0] if named else "response_format")

    def _read(self, response: httpx2.Response) -> Said:
        body = _json(response.content)
        if body is None:
            kind = response.headers.get("content-type", "something")
            raise self.failed(
                f"answers with {kind} that is no JSON; is the base URL right? Most end in /v1"
            )
        said = read_completion(body)
        if said is None:
            raise self.failed("answers with JSON that is no chat completion")
        return said

    def _status(self, response: httpx2.Response) -> str:
        code = response.status_code
        if code in (401, 403):
            state = "is not set" if self._key() == _NO_KEY else "holds one that it refuses"
            return f"wants a key (HTTP {code}): set {self.api_key_env}, which {state}"
        if response.next_request is not None:
            to = response.next_request.url
            where = f"{to.scheme}://{to.netloc.decode()}{to.path}"
            return f"redirects (HTTP {code}) to {where}; give the base URL that it means"
        body = _json(response.content)
        error = body.get("error", body) if isinstance(body, dict) else None
        words = error.get("message") if isinstance(error, dict) else None
        told = f": {words}" if isinstance(words, str) else ""
        hint = "; is the base URL right, and the model's name?" if code == 404 else ""
        return f"answers HTTP {code}{hint}{told}"

    def failed(self, what: str) -> TeacherFailed:
        """The error, in one line, with the key blotted out wherever it stands."""
        key = self._key()
        told = what if key == _NO_KEY else what.replace(key, "[key]")
        told = " ".join(told.split())[:300]
        return TeacherFailed(f"the teacher {self.model} at {self.url} {told}")

    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip() or _NO_KEY


def base_url(text: str) -> str:
    """Checks and completes a base URL: one without a path gets `/v1`.

    Raises:
        ConfigError: which does not show the URL, since that may hold a secret.
    """
    like = "give one like http://127.0.0.1:8000/v1"
    try:
        url = httpx2.URL(text.strip())
        if url.port is not None and not 0 < url.port < 1 << 16:
            raise httpx2.InvalidURL("no such port")
    except httpx2.InvalidURL:
        raise ConfigError(f"the teacher's URL cannot be read; {like}") from None
    if url.userinfo:
        raise ConfigError(
            "the teacher's URL holds a user name or a password; leave that out, and put the key"
            " into the environment variable that teacher.api_key_env names"
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"the teacher's URL is no http:// or https:// address; {like}")
    if url.query or url.fragment:
        raise ConfigError(f"the teacher's URL holds a query or a fragment; {like}")
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    return str(url.copy_with(path=path or "/v1"))


class _BadBody(openai.OpenAIError):
    """An answer's body is refused. The client does not retry on errors of its own kind."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self.stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for part in self.stream:
            total += len(part)
            if total > _MOST_BYTES:
                raise _BadBody(f"answers with more than {_MOST_BYTES >> 20} MiB")
            yield part

    async def aclose(self) -> None:
        await self.stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Bounds an answer's body before any of it is read."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _BadBody("answers compressed though asked not to")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


@cache
def _trusted() -> ssl.SSLContext:
    return httpx2.create_ssl_context()  # reading the certificates takes longer than a request


def _run(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Runs it in a thread of its own.

    The caller may be inside a running event loop; and a loop takes long to close where a name
    look-up hangs, so nobody waits for that.
    """
    done: Future[T] = Future()

    async def run() -> None:
        try:
            done.set_result(await work)
        except BaseException as error:
            done.set_exception(error)

    def loop() -> None:
        coroutine = run()
        try:
            asyncio.run(coroutine)
        except BaseException as error:  # no loop: too many open files
            coroutine.close()
            work.close()
            if not done.done():
                done.set_exception(error)

    threading.Thread(target=loop, daemon=True).start()
    return done


def _json(body: bytes) -> object | None:
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value
