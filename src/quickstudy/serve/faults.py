"""Errors as OpenAI's API tells them. No answer ever holds a traceback."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from quickstudy.serve.replies import encode


class ApiError(Exception):
    """What a client is told instead of an answer. Its text may name what it was asked."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """OpenAI's `type` of error."""
        if self.status == 429:
            return "rate_limit_error"
        if self.status in (401, 403):
            return "authentication_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def to_json(self) -> dict[str, Any]:
        told = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": told}

    def response(self) -> Response:
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after + 0.5)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(encode(self.to_json()), self.status, headers, "application/json")


def unsupported(param: str, instead: str = "leave it out") -> ApiError:
    return ApiError(
        400, f"{param} is not supported here; {instead}", param=param, code="unsupported_parameter"
    )


def invalid(param: str, message: str) -> ApiError:
    return ApiError(400, f"{param}: {message}", param=param, code="invalid_value")


def internal(request_id: str) -> ApiError:
    message = f"something went wrong in the server; its log tells more under {request_id}"
    return ApiError(500, message, code="internal_error")


def shutting_down() -> ApiError:
    message = "the server is shutting down; try again in a moment"
    return ApiError(503, message, code="shutting_down", retry_after=5)
