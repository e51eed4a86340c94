"""What goes wrong on the way to a gateway, as the herd's errors. Pure.

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
from http import HTTPStatus

from herder import errors

PASSING = {502, 503, 504}
"""Statuses after which the same call may succeed."""

_NO_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

_CODES: dict[str, type[errors.HerdError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.HerdError)
}


def error_of(
    status: int, body: bytes, headers: Mapping[str, str] | None = None, url: str = "it"
) -> errors.HerdError:
    """The error that an answer tells: the same as on the herder's machine.

    Args:
        status: the answer's.
        body: its content; what stands before a gateway answers in forms of its own.
        headers: its headers, by their names in small letters.
        url: of the gateway, for the sentence.
    """
    try:
        told = json.loads(body)["error"]
        code, message = str(told["code"]), str(told["message"])
        data = {str(name): value for name, value in (told.get("data") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _foreign(status, headers or {}, url)
    kind = _CODES.get(code) or _unknown(status)
    if issubclass(kind, errors.OrderEnded):
        kind = errors.HerdError
    error = kind.__new__(kind, message)
    errors.HerdError.__init__(error, message, **data)
    for name, value in data.items():
        setattr(error, name, value)
    return error


def _unknown(status: int) -> type[errors.HerdError]:
    """What an error is by its status alone: a gateway may be newer than who calls it."""
    if status == 429:
        return errors.RateLimited
    return errors.InvalidRequest if status < 500 else errors.HerdUnavailable


def _foreign(status: int, headers: Mapping[str, str], url: str) -> errors.HerdError:
    """An answer that is no herd's: a proxy's page, or that of some other server."""
    try:
        what = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        what = str(status)
    if status < 400:
        where = errors.shown(headers.get("location", "somewhere else"))
        return errors.SetupError(f"{url} answered {what} and points to {where}; use that address.")
    if status in (401, 407):
        return errors.Unauthorized(f"What stands before the gateway at {url} answered {what}.")
    if status == 429:
        after = headers.get("retry-after", "")
        seconds = int(after) if after.isascii() and after.isdigit() and len(after) < 7 else 1
        return errors.RateLimited(
            f"What stands before the gateway at {url} answered {what}.", seconds
        )
    if status == 413:
        return errors.InvalidRequest(f"The call is longer than {url} takes ({what}).")
    if status < 500:
        return errors.SetupError(
            f"What answers at {url} is no herd's gateway, or not at this path: it answered {what}."
        )
    return errors.HerdUnavailable(
        f"The gateway at {url} is out of reach: what stands before it answered {what}; try again."
    )


class Refused(Exception):
    """A line that was refused for now: it is asked for again, like one that broke."""

    def __init__(self, error: errors.HerdError) -> None:
        super().__init__(error.message)
        self.error = error


@contextmanager
def certificates() -> Iterator[None]:
    """Where the certificates to trust are read.

    Raises:
        SetupError: `SSL_CERT_FILE` or `SSL_CERT_DIR` names none.
    """
    try:
        yield
    except OSError as error:
        raise errors.SetupError(
            f"The certificates to trust cannot be read ({error.strerror or error}); look at "
            f"SSL_CERT_FILE and SSL_CERT_DIR."
        ) from None


def lasts(error: Exception) -> bool:
    """Whether a call that failed so would fail again, however often it is sent."""
    return isinstance(away(error, ""), errors.SetupError)


def away(error: Exception | None, url: str) -> errors.HerdError:
    """The error of a gateway that cannot be reached, or cuts its lines.

    Args:
        error: what the HTTP library raised; None where each line ended too early.
        url: of the gateway.
    """
    if error is None:
        return errors.HerdUnavailable(f"The gateway at {url} ends each line early; try again.")
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return errors.SetupError(
                f"The certificate of {url} is not trusted ({cause.verify_message.rstrip('.')}); "
                f"SSL_CERT_FILE names a file of certificates to trust."
            )
        # One that ends in the midst of the handshake may be starting.
        if isinstance(cause, ssl.SSLError) and not isinstance(
            cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        ):
            return errors.SetupError(
                f"No TLS that is understood here is spoken at {url} "
                f"({_words(cause.reason)}); is it an http:// address?"
            )
        if isinstance(cause, socket.gaierror):
            if cause.errno in _NO_HOST:
                return errors.SetupError(f"The host of {url} is not known; is the address right?")
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
    """An error, and what was behind it, the outermost first."""
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
