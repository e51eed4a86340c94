"""OpenAI's requests, read: what is honoured, and what is refused by its name. Pure.

A parameter that would be ignored in silence changes what a program gets without telling it; so
whatever is not honoured here is an error, unless its value asks for what happens anyway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from herder.web.errors import BadRequest

Kind = Literal["chat", "completion"]

_SAMPLING = (
    *("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"),
    # Not OpenAI's; they come in `extra_body`.
    *("top_k", "min_p", "repeat_penalty", "grammar"),
)
_NUMBER = ((int, float), "a number")
_WHOLE = ((int,), "a whole number")
_KINDS = {"seed": _WHOLE, "top_k": _WHOLE, "grammar": ((str,), "text")}
"""What JSON has to have for each, where it is no number: "7" and true are none."""

_PLAIN = (
    *("fee", "multiplier", "max_fee", "quote"),
    *("reference", "start_by", "run_limit_s", "stop"),
)
_COMMON = {
    *(*_SAMPLING, *_PLAIN, "model", "max_tokens", "logit_bias", "response_format"),
    *("stream", "stream_options", "user", "on_disconnect"),
}
_KNOWN: dict[Kind, set[str]] = {
    "chat": {*_COMMON, "messages", "max_completion_tokens"},
    "completion": {*_COMMON, "prompt"},
}
_SAME: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "store": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "modalities": (["text"],),
    "metadata": ({},),
}
"""Values that ask for what happens anyway."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A call to one of OpenAI's routes, as the desk is asked.

    Attributes:
        call: arguments of `LocalHerd.submit`, the model as the caller names it.
        stream: whether the text is to come as it is generated.
        include_usage: whether a stream ends with the counts.
        on_disconnect: what becomes of the order when the caller goes away.
    """

    kind: Kind
    call: dict[str, Any]
    stream: bool = False
    include_usage: bool = False
    sampling: dict[str, Any] = field(default_factory=dict)
    on_disconnect: Literal["cancel", "continue"] = "cancel"


def read(kind: Kind, body: object, headers: Mapping[str, str], default_tokens: int) -> Asked:
    """Read a call.

    Args:
        kind: of which route.
        body: the request's, as JSON gave it.
        headers: the request's; `X-Fee`, `X-Multiplier` and `X-Max-Fee` price it as the fields
            of the same names do, and so does `X-On-Disconnect`.
        default_tokens: where the call says no number.

    Raises:
        BadRequest: something of it is not honoured here, or has the wrong shape.
    """
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    given = {str(name): value for name, value in body.items() if value is not None}
    for name in given:
        if name not in _KNOWN[kind] and not _asks_for_nothing(name, given[name]):
            raise BadRequest(f"{name[:60]} is not supported here; leave it out.", name[:60])
    call: dict[str, Any] = {name: given[name] for name in _PLAIN if name in given}
    call |= _priced(headers, call)
    call["model"] = _text(given, "model")
    call["tokens"] = _tokens(given, default_tokens)
    if "user" in given and "reference" not in call:
        call["reference"] = _text(given, "user")
    if kind == "chat":
        call["messages"] = _messages(given.get("messages"))
    else:
        call |= {"prompt": _prompt(given.get("prompt")), "raw": True}
    options = given.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise BadRequest("stream_options may only contain include_usage.", "stream_options")
    return Asked(
        kind,
        call,
        stream=_flag(given.get("stream", False), "stream"),
        include_usage=_flag(options.get("include_usage", False), "stream_options.include_usage"),
        sampling=_sampling(given),
        on_disconnect=_on_disconnect(given, headers),
    )


def _asks_for_nothing(name: str, value: object) -> bool:
    same = _SAME.get(name, ())
    return any(type(value) is type(one) and value == one for one in same)


def _priced(headers: Mapping[str, str], call: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("fee", "max_fee", "multiplier"):
        header = f"x-{name.replace('_', '-')}"
        text = headers.get(header)
        if text is None:
            continue
        if name in call:
            raise BadRequest(
                f"{name} is given both in the body and in {header}; give only one.", name
            )
        if name == "multiplier":
            found[name] = text
        elif text.isascii() and text.isdigit() and len(text) <= 20:
            found[name] = int(text)
        else:
            raise BadRequest(f"{header} must be a whole number of winston.", header)
    return found


def _on_disconnect(
    given: Mapping[str, Any], headers: Mapping[str, str]
) -> Literal["cancel", "continue"]:
    found = given.get("on_disconnect", headers.get("x-on-disconnect", "cancel"))
    if found == "cancel":
        return "cancel"
    if found == "continue":
        return "continue"
    raise BadRequest("on_disconnect must be cancel or continue.", "on_disconnect")


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false.", name)
    return value


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be text.", name)
    return value


def _tokens(given: Mapping[str, Any], default: int) -> int:
    names = [name for name in ("max_completion_tokens", "max_tokens") if name in given]
    values = [given[name] for name in names]
    if len(values) == 2 and values[0] != values[1]:
        raise BadRequest(
            "max_tokens and max_completion_tokens differ; give only one.", "max_tokens"
        )
    if values and (type(values[0]) is not int or values[0] < 1):
        raise BadRequest(f"{names[0]} must be a whole number of at least 1.", names[0])
    return int(values[0]) if values else default


def _messages(messages: object) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message.", "messages")
    return [_turn(message, f"messages.{place}") for place, message in enumerate(messages)]


def _turn(message: object, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise BadRequest(f"{where} must be an object.", where)
    extra = {key for key, value in message.items() if value is not None} - {"role", "content"}
    extra.discard("name")  # llama.cpp's templates have no place for it; it names a speaker
    if extra:
        name = sorted(map(str, extra))[0][:40]
        raise BadRequest(f"{where}.{name} is not supported here.", f"{where}.{name}")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadRequest(f"{where}.role must be one of {', '.join(_ROLES)}.", f"{where}.role")
    return {"role": _ROLES[role], "content": _content(message.get("content"), f"{where}.content")}


def _content(content: object, where: str) -> str:
    """Text, or parts that are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise BadRequest(f"{where} must be text.", where)
    texts = []
    for place, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = str(part.get("type") if isinstance(part, dict) else part)[:40]
            raise BadRequest(
                f"{where}.{place} is of type {kind}; only text is supported here.",
                f"{where}.{place}",
            )
        if extra := set(part) - {"type", "text"}:
            name = f"{where}.{place}.{min(extra)[:40]}"
            raise BadRequest(f"{name} is not supported here.", name)
        if not isinstance(part.get("text"), str):
            raise BadRequest(f"{where}.{place}.text must be text.", f"{where}.{place}.text")
        texts.append(part["text"])
    return "".join(texts)


def _prompt(prompt: object) -> str:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequest("prompt must be a single string.", "prompt")
    return prompt


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: given[name] for name in _SAMPLING if name in given}
    for name, value in found.items():
        kinds, what = _KINDS.get(name, _NUMBER)
        if type(value) not in kinds:
            raise BadRequest(f"{name} must be {what}.", name)
    if "logit_bias" in given:
        found["logit_bias"] = _bias(given["logit_bias"])
    schema = _schema(given.get("response_format"))
    if schema is not None:
        found["json_schema"] = schema
    return found


def _bias(bias: object) -> dict[int, Any]:
    if not isinstance(bias, dict) or not all(
        token.isascii() and token.isdigit() and len(token) <= 9 and type(value) in (int, float)
        for token, value in bias.items()
    ):
        raise BadRequest("logit_bias must map token numbers to numbers.", "logit_bias")
    return {int(token): value for token, value in bias.items()}


def _schema(wanted: object) -> str | None:
    """Return the JSON schema that an answer has to follow, as text."""
    if wanted is None:
        return None
    if not isinstance(wanted, dict):
        raise BadRequest("response_format must be an object.", "response_format")
    kind = wanted.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return json.dumps({"type": "object"})
    inner = wanted.get("json_schema")
    if kind == "json_schema" and isinstance(inner, dict) and isinstance(inner.get("schema"), dict):
        try:
            return json.dumps(inner["schema"], allow_nan=False)
        except (ValueError, RecursionError):  # 1e999, or as deep as it could just be read
            raise BadRequest(
                "The schema is not valid JSON, or it is nested too deeply.", "response_format"
            ) from None
    raise BadRequest(
        "response_format must be of type text, json_object, or json_schema with a schema.",
        "response_format",
    )
