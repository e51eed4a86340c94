"""A call to one of OpenAI's routes, read from its body and headers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import ValidationError

from herder.gateway.schemas.openai_requests import ChatBody, CompletionBody, OnDisconnect
from herder.interface import OrderCall
from herder.web.errors import BadRequest
from herder.web.shapes import sentence_of

Kind = Literal["chat", "completion"]

_BODIES: dict[Kind, type[ChatBody | CompletionBody]] = {
    "chat": ChatBody,
    "completion": CompletionBody,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A call to one of OpenAI's routes, as the herd is asked.

    Attributes:
        prompt: the text, or None where `call` has messages.
        tokens: the most tokens to generate; None for as many as fit.
        call: what else the herd is asked; the model as the caller names it.
        stream: whether the text is to come as it is generated.
        include_usage: whether a stream ends with the counts.
        on_disconnect: what becomes of the order when the caller goes away.
        metadata: what is noted with the order.
        shows_reasoning: whether what the model thinks is part of the answer.
        form_names: of sampling parameters that say what form the answer has, what the caller
            calls them.
    """

    kind: Kind
    prompt: str | None
    tokens: int | None
    call: OrderCall
    stream: bool
    include_usage: bool
    on_disconnect: OnDisconnect
    metadata: Mapping[str, str]
    shows_reasoning: bool
    form_names: Mapping[str, str]


def read(kind: Kind, body: object, headers: Mapping[str, str]) -> Asked:
    """Read a call.

    Args:
        kind: of which route.
        body: the request's, as JSON gave it.
        headers: the request's; `X-Fee`, `X-Multiplier` and `X-Max-Fee` price it as the fields
            of the same names do, and so does `X-On-Disconnect`.

    Raises:
        BadRequest: something of it is not honoured here, or has the wrong shape.
    """
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    try:
        found = _BODIES[kind].model_validate(body)
    except ValidationError as error:
        raise BadRequest(
            *sentence_of(error.errors(include_url=False, include_input=False))
        ) from None
    options = found.stream_options
    return Asked(
        kind,
        found.prompt if isinstance(found, CompletionBody) else None,
        found.tokens(),
        cast(OrderCall, found.call() | _priced(headers, found)),
        stream=found.stream is True,
        include_usage=options is not None and options.include_usage is True,
        on_disconnect=found.on_disconnect or _on_disconnect(headers),
        metadata=found.metadata or {},
        shows_reasoning=isinstance(found, ChatBody) and found.shows_reasoning(),
        form_names=found.form()[1],
    )


def _priced(headers: Mapping[str, str], body: ChatBody | CompletionBody) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("fee", "max_fee", "multiplier"):
        header = f"x-{name.replace('_', '-')}"
        text = headers.get(header)
        if text is None:
            continue
        if getattr(body, name) is not None:
            raise BadRequest(
                f"{name} is given both in the body and in {header}; give only one.", name
            )
        if name == "multiplier" or (name == "fee" and text == "base"):
            found[name] = text
        elif text.isascii() and text.isdigit() and len(text) <= 20:
            found[name] = int(text)
        else:
            or_base = ", or base" if name == "fee" else ""
            raise BadRequest(f"{header} must be a whole number of winston{or_base}.", header)
    return found


def _on_disconnect(headers: Mapping[str, str]) -> OnDisconnect:
    match headers.get("x-on-disconnect", "cancel"):
        case "cancel":
            return "cancel"
        case "continue":
            return "continue"
    raise BadRequest("on_disconnect must be cancel or continue.", "on_disconnect")


PRICED = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", "pattern": pattern},
    }
    for name, pattern, description in (
        ("X-Fee", "^([0-9]{1,20}|base)$", "As `fee`."),
        ("X-Max-Fee", "^[0-9]{1,20}$", "As `max_fee`."),
        ("X-Multiplier", "^[0-9.]{1,20}$", "As `multiplier`."),
        ("X-On-Disconnect", "^(cancel|continue)$", "As `on_disconnect`."),
        ("Idempotency-Key", "^[!-~]{1,255}$", "The same call with the same key is one order."),
    )
]
"""Headers that price a call or name it."""
