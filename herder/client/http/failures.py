"""The failures on the way to a gateway, as the herd's errors. Pure.

A sentence each, with the code of `herder.errors`: `herd_unavailable` where the same call may work
later, `setup_error` where the address, the certificate or what listens there is wrong.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from herder import errors
from herder.webhooks.schedule import retry_after_us

PASSING = {502, 503, 504}
"""Statuses after which the same call may succeed."""

_NO_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

_CODES: dict[str, type[errors.HerdError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.HerdError) and "code" in vars(kind)
}
MAX_MESSAGE_CHARS = 2000
MAX_RETRY_AFTER_S = 86_400


def error_of(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    url: str = "it",
    now_s: float = 0.0,
) -> errors.HerdError:
    """Return the error that an answer tells: the same as on the herder's machine.

    Args:
        status: the answer's.
        body: its content; what stands before a gateway answers in forms of its own.
        headers: its headers, by their names in small letters.
        url: of the gateway, for the sentence.
        now_s: the time, in seconds since the epoch.
    """
    told = told_by(body)
    if told is None:
        return _foreign(status, headers or {}, url, int(now_s * 1_000_000))
    kind = _CODES.get(told.code) or _unknown(status)
    if issubclass(kind, errors.OrderEnded | errors.OrderSetAside):
        kind = errors.HerdError
    # By what it carries, whatever its `__init__` takes; what is named in its data is no attribute.
    error = kind.__new__(kind, told.message)
    errors.HerdError.__init__(error, told.message)
    error.data = told.data
    if isinstance(error, errors.RateLimited):
        error.retry_after_s = _seconds_of(told.data.get("retry_after_s"))
    if isinstance(error, errors.InvalidMessage):
        tag = told.data.get("tag")
        error.param = tag if isinstance(tag, str) else None
    return error


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a gateway tells it."""

    code: str
    message: str
    data: dict[str, Any]


def told_by(body: bytes) -> Told | None:
    """Return the error in an answer; None where no gateway wrote it."""
    try:
        told = json.loads(body)["error"]
        data = {str(name): value for name, value in (told.get("data") or {}).items()}
        return Told(str(told["code"]), _plain(str(told["message"])), data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _plain(text: str) -> str:
    """Return a sentence of a server's that may be printed.

    Bounded, on one line, nothing for terminals.
    """
    cut = text[:MAX_MESSAGE_CHARS]
    return "".join(one if one.isprintable() else " " for one in cut)


def _seconds_of(found: object) -> int:
    """Seconds until another try makes sense, of which a server may have said anything."""
    if isinstance(found, bool) or not isinstance(found, int):
        return 1
    return min(max(found, 0), MAX_RETRY_AFTER_S)


def _unknown(status: int) -> type[errors.HerdError]:
    """Return the kind of an error by its status: a gateway may be newer than its caller."""
    if status == 429:
        return errors.RateLimited
    return errors.InvalidRequest if status < 500 else errors.HerdUnavailable


def _foreign(status: int, headers: Mapping[str, str], url: str, now_us: int) -> errors.HerdError:
    """Return the error of an answer that is not a herd's, such as a proxy's page."""
    try:
        what = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        what = str(status)
    if status < 400:
        where = _plain(errors.shown(headers.get("location", "somewhere else")))
        return errors.SetupError(
            f"{url} answered {what} and redirects to {where}; use that address."
        )
    if status in (401, 407):
        return errors.Unauthorized(f"A proxy in front of the gateway at {url} answered {what}.")
    if status == 429:
        after_us = retry_after_us(headers.get("retry-after"), now_us)
        return errors.RateLimited(
            f"A proxy in front of the gateway at {url} answered {what}.",
            after_us // 1_000_000 or 1,
        )
    if status == 413:
        return errors.InvalidRequest(f"The call is longer than {url} accepts ({what}).")
    if status < 500:
        return errors.SetupError(
            f"The server at {url} is not a herd's gateway, or the path is wrong: it answered "
            f"{what}."
        )
    return errors.HerdUnavailable(
        f"The gateway at {url} is out of reach: a proxy in front of it answered {what}; try again."
    )


@contextmanager
def certificates() -> Iterator[None]:
    """Translate the errors of reading the trusted certificates.

    Raises:
        SetupError: `SSL_CERT_FILE` or `SSL_CERT_DIR` names none.
    """
    try:
        yield
    except OSError as error:
        raise errors.SetupError(
            f"The trusted certificates cannot be read ({error.strerror or error}); check "
            "SSL_CERT_FILE and SSL_CERT_DIR."
        ) from None


def lasts(error: Exception) -> bool:
    """Return whether a call that failed so would fail again, however often it is sent."""
    return isinstance(away(error, ""), errors.SetupError)


def away(error: Exception | None, url: str) -> errors.HerdError:
    """Return the error of a gateway that cannot be reached, or cuts its lines.

    Args:
        error: what the HTTP library raised; None where each line ended too early.
        url: of the gateway.
    """
    if error is None:
        return errors.HerdUnavailable(
            f"The gateway at {url} keeps closing the connection early; try again."
        )
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return errors.SetupError(
                f"The certificate of {url} is not trusted ({cause.verify_message.rstrip('.')}); "
                "set SSL_CERT_FILE to a file of certificates to trust."
            )
        # One that ends in the midst of the handshake may be starting.
        if isinstance(cause, ssl.SSLError) and not isinstance(
            cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        ):
            return errors.SetupError(
                f"The TLS handshake with {url} failed ({_words(cause.reason)}); is it an http:// "
                "address?"
            )
        if isinstance(cause, socket.gaierror):
            if cause.errno in _NO_HOST:
                return errors.SetupError(f"The host of {url} does not exist; is the address right?")
            return errors.HerdUnavailable(
                f"The host of {url} cannot be looked up ({cause.strerror}); try again."
            )
        if isinstance(cause, ConnectionRefusedError):
            return errors.HerdUnavailable(
                f"The gateway is out of reach: nothing listens at {url} (connection refused)."
            )
        if type(cause).__name__ in ("LocalProtocolError", "UnsupportedProtocol"):
            return errors.SetupError(f"{url} cannot be called ({type(cause).__name__}).")
    why = _words(type(error).__name__)
    return errors.HerdUnavailable(f"The gateway at {url} is out of reach ({why}); try again.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what was behind it, the outermost first."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [behind for behind in (one.__cause__, one.__context__) if behind is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _words(name: str | None) -> str:
    """`WRONG_VERSION_NUMBER` and `ConnectTimeout` as words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name or "no reason given").lower()
