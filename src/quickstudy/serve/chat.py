"""Chat completions: from a body to an answer or a stream. Nothing here computes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi import Request as Http
from starlette.responses import Response, StreamingResponse

from quickstudy.serve import asked as reading
from quickstudy.serve.engine import Engine
from quickstudy.serve.faults import ApiError, shutting_down
from quickstudy.serve.gate import Visit
from quickstudy.serve.metrics import Metrics
from quickstudy.serve.replies import Result, encode, event
from quickstudy.serve.scheduler import Draining, QueueFull, Scheduler
from quickstudy.serve.talk import Talk
from quickstudy.serve.wire import ChatRequest

_WAITING = b": waiting\n\n"  # a comment, which clients pass over
_DONE = b"data: [DONE]\n\n"


class Chat:
    """Chat completions of one engine."""

    def __init__(self, engine: Engine, scheduler: Scheduler, metrics: Metrics) -> None:
        self.engine, self.scheduler, self.metrics = engine, scheduler, metrics
        self.limits = engine.limits

    async def answer(self, http: Http, body: ChatRequest) -> Response:
        visit: Visit = http.state.visit
        assert visit.client is not None
        if self.scheduler.draining:
            raise shutting_down()
        visit.client.ask()
        asked = reading.read(body, visit.id, self.engine.names, self.limits)
        talk = Talk(http, asked, visit, self.limits.timeout)
        tell = talk.tell if asked.stream else None
        try:
            talk.start(
                self.scheduler.submit(
                    lambda job: self.engine.answer(asked, job, tell), visit.client
                )
            )
        except QueueFull as full:
            message = f"all {self.scheduler.places} places are taken; try again later"
            raise ApiError(429, message, code="queue_full", retry_after=full.retry_after) from None
        except Draining:
            raise shutting_down() from None
        watch = asyncio.create_task(talk.watch())
        try:
            if asked.stream:
                pieces = talk.pieces(self.limits.keep_alive)
                # what fails at once gets a status of its own, not a stream
                try:
                    first = [await anext(pieces)]
                except StopAsyncIteration:
                    first = []
                    talk.result()
                events = self._events(talk, watch, first, pieces)
                headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # for nginx
                return StreamingResponse(events, 200, headers, "text/event-stream")
            await talk.ended()
            result = talk.result()
        except BaseException:
            talk.leave()
            watch.cancel()
            raise
        watch.cancel()
        self._note(talk, result)
        return Response(encode(talk.envelope.completion(result)), media_type="application/json")

    async def _events(
        self,
        talk: Talk,
        watch: asyncio.Task[None],
        first: list[tuple[int, str] | None],
        pieces: AsyncIterator[tuple[int, str] | None],
    ) -> AsyncIterator[bytes]:
        envelope = talk.envelope
        started: set[int] = set()

        def told(piece: tuple[int, str] | None) -> bytes:
            if piece is None:
                return _WAITING
            index, words = piece
            role = {} if index in started else {"role": "assistant"}
            started.add(index)
            return event(envelope.piece(index, {**role, "content": words}))

        try:
            for piece in first:
                yield told(piece)
            async for piece in pieces:
                yield told(piece)
            result = talk.result()
            self._note(talk, result)
            for index in range(len(result.outcomes)):
                if index not in started:
                    yield told((index, ""))
            for chunk in envelope.last(result, talk.asked.include_usage):
                yield event(chunk)
        except ApiError as error:
            talk.visit.told["error"] = error.code
            yield event(error.to_json())
        finally:
            talk.leave()
            watch.cancel()
        yield _DONE

    def _note(self, talk: Talk, result: Result) -> None:
        visit, cycle = talk.visit, result.cycle
        first = talk.first_token or time.monotonic() - visit.arrived
        self.metrics.answered(result, first, talk.asked.stream, visit.id)
        visit.path = cycle.path
        visit.told = {
            "method_used": cycle.method,
            "answer": cycle.path,
            "certainty": cycle.certainty,
            "examples": cycle.examples,
            "queued": round(cycle.queued, 4),
            "first_token": round(first, 4),
            "stream": talk.asked.stream,
            "tools": len(talk.asked.request.tools),
            **result.usage,
        }
