"""The OpenAPI document, completed: what each route may refuse, and in which form.

FastAPI knows what a route takes and what it gives. What may be refused follows from its shape: who
needs a key may be told 401, who names something 404, who writes 402, 409 and 422. A router that is
added is described by that rule without a word of its own; a route of which it is not true says so
with `responses=refusals(…)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from herder.gateway.schemas.answers import ErrorAnswer

_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which the same call may succeed.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }
}
DESCRIPTION = """\
A shared herd of machines for LLM inference: the best-paid prompt runs first.

Each answer has an `X-Request-Id`: the caller's own, or a new one. Answers to calls with an API key
have `x-ratelimit-limit-requests`, `x-ratelimit-remaining-requests` and
`x-ratelimit-reset-requests`, as OpenAI's have, where the operator limits what a key may call. Those
of OpenAI's routes and of `/v1/orders` have `X-Next-Price`: what the next order will pay that names
no fee, as in `model="…", multiplier=1.5, prompt_fee=1, fee_per_token=1`. Bodies may come with
`Content-Encoding: gzip`; long answers are compressed for who takes it."""
LOCATION = {
    "Location": {
        "description": "The address of what was created.",
        "required": True,
        "schema": {"type": "string"},
    }
}
"""The header of an answer to a call that made something."""

REFUSALS: dict[int, dict[str, Any]] = {
    400: {"description": "The call is invalid; `param` names the wrong parameter, if it is one."},
    401: {
        "description": "There is no API key, or it is not valid.",
        "headers": {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    },
    402: {"description": "The fee, the balance or the key's limit is too low; nothing was held."},
    403: {"description": "The API key does not have the required scope."},
    404: {"description": "What was named does not exist, or belongs to another account."},
    409: {"description": "The current state does not allow it, or it was already done."},
    413: {"description": "The request's body is too long."},
    415: {
        "description": "The request's body is compressed otherwise than with gzip.",
        "headers": {"Accept-Encoding": {"required": True, "schema": {"type": "string"}}},
    },
    422: {"description": "The idempotency key was used for another call; nothing was held."},
    429: {
        "description": "There are too many requests; nothing was held.",
        "headers": _RETRY_AFTER,
    },
    431: {"description": "The request's headers are too long."},
    503: {"description": "A part of the herd is unavailable.", "headers": _RETRY_AFTER},
}
"""All statuses that refuse, and what they mean."""

_WRITES = {"post", "put", "patch", "delete"}
_REF = "#/components/schemas/{model}"
_UNUSED = ("HTTPValidationError", "ValidationError")
_shown: list[type] = [ErrorAnswer]
"""Shapes that no signature has: the document gets them from here."""


def _ref(shape: type) -> dict[str, Any]:
    if shape not in _shown:
        _shown.append(shape)
    return {"$ref": _REF.format(model=shape.__name__)}


def takes(body: type, headers: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the description of a body that a route reads itself; for its `openapi_extra=`.

    Args:
        body: the shape of its JSON.
        headers: parameters, as OpenAPI has them.
    """
    content = {"application/json": {"schema": _ref(body)}}
    return {"requestBody": {"required": True, "content": content}, "parameters": [*headers]}


def streamed(*events: type) -> dict[str, Any]:
    """Return the content of a stream of events; for `responses=` of a route.

    Args:
        events: the shapes that an event's `data`, a JSON text, may have.
    """
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [_ref(event) for event in events]},
    }
    # OpenAPI 3.2, 4.14.4; what reads 3.1 only leaves it out.
    shape = {"type": "object", "required": ["data"], "properties": {"data": data}}
    return {"text/event-stream": {"itemSchema": shape}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals of a route that its shape does not tell.

    For `responses=` of a route or router.

    Args:
        statuses: of `REFUSALS`.
    """
    return {status: {**REFUSALS[status], "model": ErrorAnswer} for status in statuses}


def describe(app: FastAPI) -> None:
    """Have the app's OpenAPI document say what its routes refuse."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            app.openapi_schema = _completed(found)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    form = _ref(ErrorAnswer)
    refusal = {"application/json": {"schema": form}}
    for operations in document["paths"].values():
        for method, operation in operations.items():
            answers = operation["responses"]
            # FastAPI documents its own answer to what is misshapen, which is a 400 here.
            answers.pop("422", None)
            for status in _refused(method, operation):
                told = {**REFUSALS[status], "content": refusal}
                answers[str(status)] = told | answers.get(str(status), {})
            for answer in answers.values():
                # FastAPI documents it in the media type of the route's own answer.
                if {"schema": form} in answer.get("content", {}).values():
                    answer["content"] = refusal
            operation["responses"] = dict(sorted(answers.items()))
    schemas = document["components"]["schemas"]
    for name in _UNUSED:
        schemas.pop(name, None)
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (one.__name__, "validation", TypeAdapter(one)) for one in _shown
    ]
    _, shown = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    document["components"]["schemas"] = dict(sorted({**shown["$defs"], **schemas}.items()))
    return document


def _refused(method: str, operation: dict[str, Any]) -> Iterator[int]:
    """Yield what may be refused of a route, by its shape."""
    keyed, body = "security" in operation, "requestBody" in operation
    if body or operation.get("parameters"):
        yield 400
    if keyed:
        yield from (401, 403, 429, 503)
        if method in _WRITES:
            yield from (402, 409, 422)
        if method in _WRITES or operation.get("parameters"):
            yield 404
    if method in _WRITES:
        yield from (413, 415)
    yield 431
