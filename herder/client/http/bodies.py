"""The bodies of a client's calls, as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from herder.errors import InvalidRequest

MAX_NAME_CHARS = 60


def encoded(body: Mapping[str, Any], **inner: Mapping[str, Any]) -> bytes:
    """Return a call's arguments as JSON: any mapping as an object, any sequence as a list.

    Args:
        body: the arguments, by name.
        inner: objects beside them whose fields are arguments too; empty ones are left out.

    Raises:
        InvalidRequest: JSON cannot hold an argument; the sentence names it.
    """
    parts = _fields(body)
    parts += (f'"{name}":{{{",".join(_fields(one))}}}' for name, one in inner.items() if one)
    return f"{{{','.join(parts)}}}".encode()


def _fields(values: Mapping[str, Any]) -> list[str]:
    return [f"{json.dumps(name)}:{_text_of(name, one)}" for name, one in values.items()]


def _text_of(name: str, value: object) -> str:
    """Return a value as JSON.

    Args:
        name: what it is called in the sentence that refuses it.
        value: what a program gave.
    """
    try:
        text = json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_known
        )
        text.encode()
    except _Unknown as error:
        why = str(error)
    except TypeError:
        why = "contains an object with a name that is no text"
    except UnicodeEncodeError:
        why = "contains a lone surrogate, which is not a character"
    except RecursionError:
        why = "is nested too deeply"
    except ValueError:
        why = "contains a number that is not finite or has thousands of digits, or contains itself"
    else:
        return text
    raise InvalidRequest(f"{name[:MAX_NAME_CHARS]} {why}; JSON cannot hold that.") from None


class _Unknown(TypeError):
    """Nothing of JSON's is like that value."""


def _known(value: object) -> Any:
    """Return a mapping as a dictionary, and a sequence as a list."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise _Unknown(f"contains a value of type {type(value).__name__[:MAX_NAME_CHARS]}")
