"""Envelopes: a JWS (RFC 7515) that says who signed, for whom, when, what and the body."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.utils import base64url_decode
from pydantic import ValidationError

from workers.wire.errors import WireError
from workers.wire.keys import PrivateKey, PublicKey
from workers.wire.messages import KINDS, Body

MAX_ENVELOPE_BYTES = 20 * 1024 * 1024
"""Room for the longest text in its longest form: in JSON a character takes up to 12 bytes, and a
signed envelope a third more. What is within its bounds can be sent, or its order would be stuck."""
MAX_HEADER_CHARS = 512
CLOCK_LEEWAY_S = 60
"""The difference between two machines' clocks up to which a task does not count as expired."""

_ALGORITHM = "EdDSA"
_SENDER = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message whose signature was checked.

    `at_us` is when it came to the stream that it was read from, in microseconds since the epoch,
    or 0 where nobody noted it.
    """

    kid: str
    sender: str
    body: Body
    at_us: int = 0


def seal(
    body: Body,
    key: PrivateKey,
    *,
    sender: str,
    audience: str,
    now_s: float | None = None,
    ttl_s: int = 300,
) -> str:
    """Sign a message.

    Args:
        body: what it says.
        key: the signer's private key.
        sender: `herder`, or the instance id of a worker.
        audience: the queue or stream that it is meant for; nowhere else is it accepted.
        now_s: the time in seconds since the epoch.
        ttl_s: for bodies that expire, the seconds that they may take.

    Raises:
        WireError: `too_large`.
    """
    issued = int(time.time() if now_s is None else now_s)
    claims: dict[str, Any] = {
        "iss": sender,
        "aud": audience,
        "iat": issued,
        "kind": body.kind,
        "body": body.model_dump(mode="json", exclude_defaults=True),
    }
    if body.expires:
        claims["exp"] = issued + ttl_s
    token = jwt.encode(claims, key.key, algorithm=_ALGORITHM, headers={"kid": key.kid})
    if len(token) > MAX_ENVELOPE_BYTES:
        raise WireError("too_large", f"{len(token)} bytes; at most {MAX_ENVELOPE_BYTES} are sent")
    return token


def signer(token: object) -> str:
    """Return the `kid` that a message claims: where to look for the key, not yet a proof.

    Raises:
        WireError: `too_large` or `malformed`.
    """
    if not isinstance(token, str):
        raise WireError("malformed", "the message is not text")
    if len(token) > MAX_ENVELOPE_BYTES:
        raise WireError("too_large", f"{len(token)} bytes")
    try:
        # The first part alone: PyJWT's own look at the header would decode the body as well.
        header = json.loads(base64url_decode(token.partition(".")[0][:MAX_HEADER_CHARS]))
        kid = header.get("kid")
    except (ValueError, AttributeError, RecursionError) as error:
        raise WireError("malformed", "the message is not a signed envelope") from error
    if not isinstance(kid, str):
        raise WireError("malformed", "the envelope names no key")
    return kid


def unseal(
    token: object,
    keys: Mapping[str, PublicKey],
    *,
    audience: str | Sequence[str],
    now_s: float | None = None,
) -> Envelope:
    """Check a message's signature, audience, age and form.

    Args:
        token: what came from the broker.
        keys: who may be believed here, by `kid`.
        audience: the queue or stream that it came from, or those that it may have come from.
        now_s: the time in seconds since the epoch; None for the machine's.

    Raises:
        WireError: with a code that says which check failed. Nothing of the message is trusted.
    """
    kid = signer(token)
    public = keys.get(kid)
    if public is None:
        raise WireError("unknown_key", f"nobody here has the key {kid[:32]!r}")
    try:
        claims = jwt.decode(
            token if isinstance(token, str) else "",
            public.key,
            algorithms=[_ALGORITHM],
            audience=audience,
            leeway=CLOCK_LEEWAY_S,
            # Outcomes and beats are judged by their attempt, not by their age, and a clock that
            # is ahead must not make them void. `exp` is checked below, by the caller's clock.
            options={"require": ["iss", "aud", "iat"], "verify_iat": False, "verify_exp": False},
        )
    except jwt.InvalidAudienceError as error:
        raise WireError("wrong_audience", f"the message was not meant for {audience!r}") from error
    except jwt.InvalidSignatureError as error:
        raise WireError("bad_signature", f"the signature is not by {kid[:32]!r}") from error
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise WireError("malformed", type(error).__name__) from error
    _require_fresh(claims, time.time() if now_s is None else now_s)
    body_type = KINDS.get(str(claims.get("kind")))
    if body_type is None:
        raise WireError("unknown_kind", "the kind of the message is not known here")
    if body_type.expires and "exp" not in claims:
        raise WireError("malformed", "a message of this kind must expire")
    try:
        body = body_type.model_validate(claims.get("body"))
    except ValidationError as error:
        # The error's own text would quote the message, and a prompt with it.
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise WireError("out_of_bounds", f"{body_type.kind}.{where[:80]}") from None
    sender = claims["iss"]
    if not isinstance(sender, str) or not _SENDER.fullmatch(sender):
        raise WireError("out_of_bounds", "the sender's name")
    return Envelope(kid, sender, body)


def _require_fresh(claims: Mapping[str, Any], now_s: float) -> None:
    """Refuse what came too late, wherever the envelope says when that is."""
    if "exp" not in claims:
        return
    try:
        expires_s = int(claims["exp"])
    except (ValueError, TypeError, OverflowError):
        raise WireError("malformed", "exp is not a number") from None
    if expires_s <= now_s - CLOCK_LEEWAY_S:
        raise WireError("expired", "the message came too late")
