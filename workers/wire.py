"""The messages between herder and workers: their fields, bounds, encoding and signatures.

One envelope for all of them: a JWS (RFC 7515) signed with Ed25519 (RFC 8037), whose claims say
who signed (`kid` in the header, `iss`), for whom (`aud`: a queue or a stream), when (`iat`, and
`exp` where a message goes stale), what (`kind`) and the body. Whatever stands outside of the
envelope decides nothing. This module loads neither Celery nor llama_cpp.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm
from jwt.utils import base64url_decode
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

INFERENCE_QUEUE = "inference"
HERDER_QUEUE = "herder"
BEATS_STREAM = "beats"

INFER_TASK = "workers.infer"
OUTCOME_TASK = "herder.outcome"
NUDGE_TASK = "herder.nudge"
NUDGE_ID = "nudge"

MAX_ENVELOPE_BYTES = 20 * 1024 * 1024
"""Room for the longest text in its longest form: in JSON a character takes up to 12 bytes, and a
signed envelope a third more. What is within its bounds can be sent, or its order would be stuck."""
MAX_HEADER_CHARS = 512
MAX_PROMPT_BYTES = 1024 * 1024
MAX_MESSAGES = 256
MAX_TOKENS = 1_000_000
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_TEXT_CHARS = 1024 * 1024
MAX_GRAMMAR_CHARS = 16 * 1024
MAX_HELD = 1024
MAX_OUTCOMES = 64
MAX_RANK = 2**63 - 1
CLOCK_LEEWAY_S = 60
"""How far the clocks of two machines may differ before a task counts as expired."""

_ALGORITHM = "EdDSA"
_SENDER = re.compile(r"[0-9A-Za-z_-]{1,64}")


class WireError(Exception):
    """A message that is not ours: malformed, unsigned, signed by the wrong one, or out of bounds.

    Attributes:
        code: a stable word for logs and tests, such as `bad_signature`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


# --------------------------------------------------------------------------------------------
# Keys


def thumbprint(public_jwk: Mapping[str, Any]) -> str:
    """The `kid` of a key: its JWK thumbprint (RFC 7638), shortened to 128 bits of hex."""
    members = {name: public_jwk[name] for name in ("crv", "kty", "x")}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Somebody whose messages may be believed."""

    kid: str
    key: Ed25519PublicKey

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> Self:
        """Read a public JWK.

        Raises:
            WireError: it is no Ed25519 public key.
        """
        try:
            key = OKPAlgorithm.from_jwk(dict(jwk))
        except (jwt.InvalidKeyError, KeyError, TypeError, ValueError) as error:
            raise WireError("bad_key", "not a JWK of an Ed25519 key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise WireError("bad_key", "not the public half of an Ed25519 key")
        return cls(thumbprint(jwk), key)

    def to_jwk(self) -> dict[str, str]:
        """The key as a JWK that may be shown to anybody."""
        jwk = OKPAlgorithm.to_jwk(self.key, as_dict=True)
        return {name: str(jwk[name]) for name in ("kty", "crv", "x")}


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A signer's key."""

    kid: str
    key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Draw a new key from the system's randomness."""
        return cls._of(Ed25519PrivateKey.generate())

    @classmethod
    def _of(cls, key: Ed25519PrivateKey) -> Self:
        jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        return cls(thumbprint(jwk), key)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> Self:
        """Read a private JWK.

        Raises:
            WireError: it is no Ed25519 private key.
        """
        try:
            key = OKPAlgorithm.from_jwk(dict(jwk))
        except (jwt.InvalidKeyError, KeyError, TypeError, ValueError) as error:
            raise WireError("bad_key", "not a JWK of an Ed25519 key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise WireError("bad_key", "not the private half of an Ed25519 key")
        return cls._of(key)

    def to_jwk(self) -> dict[str, str]:
        """The key as a JWK that only its owner may see."""
        jwk = OKPAlgorithm.to_jwk(self.key, as_dict=True)
        return {name: str(jwk[name]) for name in ("kty", "crv", "x", "d")}

    @property
    def public(self) -> PublicKey:
        """What others check this key's signatures with."""
        return PublicKey(self.kid, self.key.public_key())


# --------------------------------------------------------------------------------------------
# Bodies

Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Count = Annotated[int, Field(ge=0, le=2**40)]
Attempt = Annotated[int, Field(ge=1, le=2**31)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
FinishReason = Literal["stop", "length", "deadline", "cancelled"]


class Body(BaseModel):
    """What a message says; its `kind` stands in the envelope."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str]
    expires: ClassVar[bool] = False
    """Whether the envelope carries `exp`: only what a worker would otherwise run too late."""


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_PROMPT_BYTES)]


class Sampling(BaseModel):
    """How the next token is chosen; the defaults are llama.cpp's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.8
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 40
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.05
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    logit_bias: Annotated[dict[int, float], Field(max_length=1024)] = {}
    grammar: Annotated[str, Field(max_length=MAX_GRAMMAR_CHARS)] | None = None
    json_schema: Annotated[str, Field(max_length=MAX_GRAMMAR_CHARS)] | None = None


class Held(BaseModel):
    """One attempt at one order, and the secret that proves who was given it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    order: Id
    attempt: Attempt
    nonce: Id


class Job(Body):
    """Herder to worker: run this attempt at this order."""

    kind = "job"
    expires = True
    order: Id
    attempt: Attempt
    nonce: Id
    rank: Annotated[int, Field(ge=-MAX_RANK, le=MAX_RANK)]
    model: Name
    multiplier: Annotated[str, Field(max_length=40)] = "1"
    """What it offers for each winston that it needs: for people who watch; it decides nothing."""
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_BYTES)] | None = None
    messages: Annotated[tuple[ChatMessage, ...], Field(max_length=MAX_MESSAGES)] | None = None
    raw: bool = False
    tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    """At least 1 wherever a client is answered; dispatch takes 0, as the original did."""
    stop: Annotated[tuple[Stop, ...], Field(max_length=MAX_STOPS)] = ()
    sampling: Sampling = Sampling()
    run_limit_s: Annotated[int, Field(ge=1, le=30 * 86_400)]

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("a job has either a prompt or messages")
        return self

    @property
    def held(self) -> Held:
        """The attempt that this job is."""
        return Held(order=self.order, attempt=self.attempt, nonce=self.nonce)


class Failure(BaseModel):
    """Why a worker could not deliver; `permanent` says that no other worker could either."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    code: Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]
    message: Annotated[str, Field(max_length=2000)]
    permanent: bool
    data: Annotated[dict[str, int | str], Field(max_length=16)] = {}


class Outcome(BaseModel):
    """How an attempt ended."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    order: Id
    attempt: Attempt
    nonce: Id
    result: Literal["completed", "failed", "handed_back"]
    finish_reason: FinishReason | None = None
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] = ""
    prompt_tokens: Count = 0
    generated: Count = 0
    failure: Failure | None = None
    took_ms: Count = 0

    @property
    def held(self) -> Held:
        """The attempt that ended."""
        return Held(order=self.order, attempt=self.attempt, nonce=self.nonce)


class Outcomes(Body):
    """Worker to herder: how attempts ended, all that waited to be sent. Again until confirmed."""

    kind = "outcomes"
    outcomes: Annotated[tuple[Outcome, ...], Field(min_length=1, max_length=MAX_OUTCOMES)]


class Announcement(BaseModel):
    """What a worker is: the herder's view of the herd comes from this, never from settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Name
    model: Name
    slots: Annotated[int, Field(ge=1, le=256)]
    context: Annotated[int, Field(ge=1, le=2**24)]
    tokens_per_s: Annotated[int, Field(ge=0, le=10**7)] = 0
    """Measured decoding speed of one slot with all slots busy; 0 while nothing was measured."""
    weights: Annotated[str, Field(max_length=64)] = "as in the file"
    draining: bool = False


class Beat(Body):
    """Worker to herder, every few seconds: still here, still running these."""

    kind = "beat"
    number: Count
    """Rises by one with each beat of an instance, so that an old one is known as old."""
    worker: Announcement
    running: Annotated[tuple[Held, ...], Field(max_length=MAX_HELD)] = ()
    unconfirmed: Annotated[tuple[Held, ...], Field(max_length=MAX_HELD)] = ()


class Claim(Body):
    """Worker to herder: these attempts are mine; sent before their prompts reach the engine."""

    kind = "claim"
    held: Annotated[tuple[Held, ...], Field(min_length=1, max_length=MAX_HELD)]


class Farewell(Body):
    """Worker to herder: this instance ends and holds nothing any more."""

    kind = "farewell"


class Marker(Body):
    """Herder to herders, on the beats' stream: one more second in which somebody listened."""

    kind = "marker"
    number: Count


class Nudge(Body):
    """Client to herder: something waits for this model. It decides nothing."""

    kind = "nudge"
    model: Name


class StopAttempt(Body):
    """Herder to worker: stop this attempt between two tokens."""

    kind = "stop"
    held: Held
    reason: Literal["cancelled", "deadline", "void"]


class Confirm(Body):
    """Herder to worker: these outcomes are settled; forget them."""

    kind = "confirm"
    held: Annotated[tuple[Held, ...], Field(max_length=MAX_HELD)]


class Refuse(Body):
    """Herder to worker: this instance may not join; say why and end."""

    kind = "refuse"
    reason: Annotated[str, Field(max_length=2000)]


class Drain(Body):
    """Herder to worker: take no more, finish or hand back, and end."""

    kind = "drain"


_KINDS: dict[str, type[Body]] = {
    body.kind: body
    for body in (
        Job,
        Outcomes,
        Beat,
        Claim,
        Farewell,
        Marker,
        Nudge,
        StopAttempt,
        Confirm,
        Refuse,
        Drain,
    )
}


def attempt_id(held: Held) -> str:
    """The Celery task id that stands for an attempt."""
    return f"{held.order}.{held.attempt}"


def control_stream(instance: str) -> str:
    """The Redis stream on which a worker instance hears from the herders."""
    return f"control:{instance}"


def text_stream(order: str, attempt: int) -> str:
    """The Redis stream that carries the provisional text of an attempt."""
    return f"text:{order}:{attempt}"


# --------------------------------------------------------------------------------------------
# Envelopes


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
    """The `kid` that a message claims: where to look for the key, not yet a proof.

    Raises:
        WireError: `too_large` or `malformed`.
    """
    if not isinstance(token, str):
        raise WireError("malformed", "the message is no text")
    if len(token) > MAX_ENVELOPE_BYTES:
        raise WireError("too_large", f"{len(token)} bytes")
    try:
        # The first part alone: PyJWT's own look at the header would decode the body as well.
        header = json.loads(base64url_decode(token.partition(".")[0][:MAX_HEADER_CHARS]))
        kid = header.get("kid")
    except (ValueError, AttributeError, RecursionError) as error:
        raise WireError("malformed", "the message is no signed envelope") from error
    if not isinstance(kid, str):
        raise WireError("malformed", "the envelope names no key")
    return kid


def unseal(token: object, keys: Mapping[str, PublicKey], *, audience: str) -> Envelope:
    """Check a message's signature, audience, age and form.

    Args:
        token: what came from the broker.
        keys: who may be believed here, by `kid`.
        audience: the queue or stream that it came from.

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
            # is ahead must not make them void; `exp` is checked wherever it stands.
            options={"require": ["iss", "aud", "iat"], "verify_iat": False},
        )
    except jwt.ExpiredSignatureError as error:
        raise WireError("expired", "the message came too late") from error
    except jwt.InvalidAudienceError as error:
        raise WireError("wrong_audience", f"the message was not meant for {audience!r}") from error
    except jwt.InvalidSignatureError as error:
        raise WireError("bad_signature", f"the signature is not of {kid[:32]!r}") from error
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise WireError("malformed", type(error).__name__) from error
    body_type = _KINDS.get(str(claims.get("kind")))
    if body_type is None:
        raise WireError("unknown_kind", "the message is of no kind that is known here")
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
