"""One chat request between its thread, which computes, and its client, who waits or leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import Request as Http

from quickstudy.errors import RequestError
from quickstudy.serve.asked import Asked
from quickstudy.serve.faults import ApiError, internal, shutting_down
from quickstudy.serve.gate import Visit
from quickstudy.serve.replies import Envelope, Result
from quickstudy.serve.scheduler import Cancelled, Task

log = logging.getLogger(__name__)


class Talk:
    """One chat request between its thread and its client."""

    def __init__(self, http: Http, asked: Asked, visit: Visit, timeout: float) -> None:
        self.http, self.asked, self.visit = http, asked, visit
        self.ends = visit.arrived + timeout
        self.loop = asyncio.get_running_loop()
        self.words: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        self.envelope = Envelope(f"chatcmpl-{visit.id}", asked.model, int(time.time()))
        self.first_token: float | None = None
        self.task: Task[Result] | None = None
        self.left = False

    def start(self, task: Task[Result]) -> None:
        self.task = task
        task.future.add_done_callback(lambda _: self._put(None))

    def tell(self, index: int, words: str) -> None:
        """Called in the request's thread."""
        if words:
            self._put((index, words))

    def _put(self, item: tuple[int, str] | None) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody listens
            self.loop.call_soon_threadsafe(self.words.put_nowait, item)

    async def ended(self) -> None:
        """Returns when the answer is there, or cannot come. Raises ApiError (504)."""
        while await self._next(float("inf")) is not None:
            pass

    async def pieces(self, keep_alive: float) -> AsyncIterator[tuple[int, str] | None]:
        """Yields words as they come, and None each time there were none for a while.

        Raises:
            ApiError: if the request's own time is over (504).
        """
        while True:
            try:
                item = await self._next(keep_alive)
            except TimeoutError:
                yield None
                continue
            if item is None:
                return
            yield item

    async def _next(self, seconds: float) -> tuple[int, str] | None:
        """The next words; None at the end."""
        left = self.ends - time.monotonic()
        try:
            async with asyncio.timeout(min(seconds, left)):
                item = await self.words.get()
        except TimeoutError:
            if time.monotonic() < self.ends:
                raise
            raise ApiError(504, "the answer took too long", code="timeout") from None
        if self.first_token is None and item is not None:
            self.first_token = time.monotonic() - self.visit.arrived
        return item

    def result(self) -> Result:
        """What came of it. Raises ApiError."""
        assert self.task is not None
        error = self.task.future.exception()
        if error is None:
            return self.task.future.result()
        if isinstance(error, ApiError):
            raise error
        if isinstance(error, RequestError):
            raise ApiError(400, str(error), param="messages", code="invalid_value")
        if isinstance(error, Cancelled) and self.left:
            raise ApiError(499, "the client has left", code="client_closed_request")
        if isinstance(error, Cancelled):
            raise shutting_down()
        log.error("the answer failed", exc_info=error)
        raise internal(self.visit.id)

    def leave(self) -> None:
        """Nobody wants the answer any more, if there is none yet."""
        if self.task is not None and not self.task.future.done():
            self.task.job.cancel()

    async def watch(self) -> None:
        """Waits until the client leaves."""
        while (await self.http.receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self.leave()
