"""Errors as HTTP answers: one form for all, which is OpenAI's.

    {"error": {"message": "…", "type": "insufficient_quota", "param": null,
               "code": "fee_too_low", "data": {"fee": 5, "needed": 22}}}

`code` is stable and the same that programs on the herder's machine see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from herder import errors
from herder.web.shapes import sentence_of

_log = structlog.get_logger("herder.gateway")

_STATUS: tuple[tuple[type[errors.HerdError], int], ...] = (
    (errors.Unauthorized, 401),
    (errors.FeeTooLow, 402),
    (errors.FeeAboveMax, 402),
    (errors.InsufficientBalance, 402),
    (errors.ApiKeyLimitReached, 402),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.AccountExists, 409),
    # Not 409, which clients of OpenAI's routes repeat: draft-ietf-httpapi-idempotency-key-header.
    (errors.IdempotencyKeyReused, 422),
    (errors.OrderEnded, 409),
    (errors.OrderNotWaiting, 409),
    (errors.QuoteExpired, 409),
    (errors.RebidTooLow, 409),
    (errors.RefundRefused, 409),
    (errors.RateLimited, 429),
    # Not 503, which says that the same call may work soon: this one waits for a person.
    (errors.OrderSetAside, 500),
    (errors.HerdUnavailable, 503),
    (errors.SetupError, 503),
    (errors.InvalidRequest, 400),
)
"""The HTTP status of each error; the first that fits, and 500 if none does."""

_ORDER_ID = re.compile(r"[0-9a-f-]{36}")

_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


_REPEATABLE = {408, 425, 429}
"""Statuses below 500 that say that the same call may succeed later."""


class ApiResponse(JSONResponse):
    """JSON that any text can be put into: a lone surrogate, which no UTF-8 holds, is escaped."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class BadRequest(errors.InvalidRequest):
    """A request that order intake never saw; `param` is the field that is wrong."""

    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class TooManyStreams(errors.RateLimited):
    """As many streams are open here as may be."""

    code = "too_many_streams"


def status_of(error: errors.HerdError) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(
    message: str,
    status: int,
    code: str,
    param: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of an error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    if data:
        error["data"] = dict(data)
    return {"error": error}


def refusal(
    body: Mapping[str, Any],
    status: int,
    headers: Mapping[str, str] | None = None,
    *,
    is_repeatable: bool | None = None,
) -> ApiResponse:
    """Return the answer to a call that was refused.

    `x-should-retry: false` stands on what cannot succeed by repeating: OpenAI's packages repeat a
    409 and every status from 500 on unless it does, and a repeated call may buy a second order.

    Args:
        body: as `body_of` returns it.
        status: the HTTP status.
        headers: of the answer.
        is_repeatable: whether the same call may succeed later; None: as its status says.
    """
    if is_repeatable is None:
        is_repeatable = status in _REPEATABLE or status > 500
    told = {} if is_repeatable else {"x-should-retry": "false"}
    return ApiResponse(body, status, headers={**(headers or {}), **told})


def answer_to(error: errors.HerdError) -> ApiResponse:
    """Return the answer to a call that was refused.

    A message that is for the operator goes to the log instead, with its data.
    """
    status = status_of(error)
    if status >= 500:
        _log.warning("call_failed", code=error.code, reason=error.message)
    headers = {}
    if isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(error.retry_after_s)
    elif status == 503:
        headers["Retry-After"] = "1"
        order_id = str(error.data.get("order", ""))
        if _ORDER_ID.fullmatch(order_id):
            headers["X-Order"] = order_id
    elif status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="llama-herder"'
    param = getattr(error, "param", None)
    message, data = error.message, error.data
    if error.told_callers:
        message = error.told_callers
        data = {name: data[name] for name in ("order",) if name in data}
    body = body_of(message, status, error.code, param, data)
    return refusal(body, status, headers)


def _methods_of(request: Request) -> str:
    """Return the methods of a path, of all its routes.

    Starlette names only the methods of the first.
    """
    found = {
        method.upper()
        for path, operations in request.app.openapi()["paths"].items()
        if compile_path(path)[0].match(request.url.path)
        for method in (*operations, *(["head"] if "get" in operations else []))
    }
    return ", ".join(sorted(found))


def _nowhere(request: Request) -> str:
    """Return the sentence for a path that nothing is at, with the one that was perhaps meant."""
    path = request.url.path
    doubled = path.startswith("/v1/v1/")
    meant = path.removeprefix("/v1") if doubled else f"/v1{path}"
    known = request.app.openapi()["paths"]
    if not any(compile_path(one)[0].match(meant) for one in known if one != "/v1"):
        return "Not Found."
    why = "the base URL has /v1 twice" if doubled else "the base URL needs /v1 at its end"
    return f"There is nothing at {path[:100]}, but {meant[:100]} is there: {why}."


def register(app: FastAPI) -> None:
    """Have the app's errors answered so; those that nobody foresaw are `faults`'."""

    async def refused(_: Request, error: Exception) -> ApiResponse:
        assert isinstance(error, errors.HerdError)
        return answer_to(error)

    async def misshapen(_: Request, error: Exception) -> ApiResponse:
        assert isinstance(error, RequestValidationError)
        message, param = sentence_of(error.errors(), skip=1)
        return refusal(body_of(message, 400, "invalid_request", param), 400)

    async def http(request: Request, error: Exception) -> ApiResponse:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        message = f"{str(error.detail).rstrip('.')}."
        headers = dict(error.headers or {})
        if error.status_code == 404 and error.detail == "Not Found":
            message = _nowhere(request)
        if error.status_code == 405 and (takes := _methods_of(request)):
            headers["Allow"] = takes
        return refusal(body_of(message, error.status_code, code), error.status_code, headers)

    app.add_exception_handler(errors.HerdError, refused)
    app.add_exception_handler(RequestValidationError, misshapen)
    app.add_exception_handler(HTTPException, http)
