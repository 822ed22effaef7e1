"""The HTTP API: routes, and what becomes of errors."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi import Request as Http
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from quickstudy.serve import documented
from quickstudy.serve.chat import Chat
from quickstudy.serve.engine import Engine
from quickstudy.serve.faults import ApiError, shutting_down
from quickstudy.serve.gate import Gate
from quickstudy.serve.keys import Keys
from quickstudy.serve.metrics import Metrics
from quickstudy.serve.scheduler import Scheduler
from quickstudy.serve.wire import ChatRequest

_TRIED = re.compile(r"(constrained-)?str$|list\[|dict\[|literal\[")


@dataclass(frozen=True)
class Served:
    """An application and what its server has to know of it."""

    app: FastAPI
    scheduler: Scheduler


def serve(engine: Engine) -> Served:
    """Puts an engine behind the API."""
    limits = engine.limits
    scheduler = Scheduler(limits.queue, limits.practice_queue)
    metrics = Metrics(scheduler)
    chat = Chat(engine, scheduler, metrics)
    app = FastAPI(title="quickstudy", description=documented.DESCRIPTION, redoc_url=None)
    app.add_middleware(Gate, keys=Keys(limits.keys), metrics=metrics, max_body=limits.max_body)
    started = int(time.time())

    def model(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "quickstudy"}

    @app.post("/v1/chat/completions", responses=documented.COMPLETIONS)
    async def chat_completions(http: Http, body: ChatRequest) -> Response:
        return await chat.answer(http, body)

    @app.get("/v1/models", responses=documented.ERRORS)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model(name) for name in engine.names.listed]}

    @app.get("/v1/models/{name:path}", responses=documented.ERRORS)
    async def one_model(name: str) -> dict[str, Any]:
        engine.names.method(name)
        return model(name)

    @app.get("/health/live", responses=documented.ERRORS)
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/health/ready", responses=documented.ERRORS)
    async def ready() -> dict[str, str]:
        if scheduler.draining:
            raise shutting_down()
        return {"status": "ok", "model": engine.names.name}

    @app.get("/metrics", response_class=PlainTextResponse, responses=documented.ERRORS)
    async def prometheus(http: Http) -> Response:
        page, kind = metrics.page(http.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": kind})

    @app.exception_handler(ApiError)
    async def refuse(_: Http, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Http, error: RequestValidationError) -> Response:
        return _told(error).response()

    @app.exception_handler(HTTPException)
    async def no_route(_: Http, error: HTTPException) -> Response:
        return ApiError(error.status_code, str(error.detail)).response()

    app.openapi = lambda: documented.openapi(app, engine.names.listed)  # type: ignore[method-assign]
    return Served(app, scheduler)


def _told(error: RequestValidationError) -> ApiError:
    """The first fault of a body, named as a client spells it."""
    fault = error.errors()[0]
    # where several types are allowed pydantic names those it tried as well
    steps = [str(step) for step in fault["loc"][1:] if not _TRIED.match(str(step))]
    param = ".".join(steps) or None
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {fault['ctx']['error']}")
    if fault["type"] == "extra_forbidden":
        text, code = f"{param} is not supported here; leave it out", "unsupported_parameter"
        return ApiError(400, text, param=param, code=code)
    return ApiError(400, f"{param or 'body'}: {message}", param=param, code="invalid_value")
