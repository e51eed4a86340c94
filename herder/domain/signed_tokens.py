"""Tokens signed by a herder: receipts, which anybody can check offline, and quotes.

Each is a JWS (RFC 7515) of the herder's key, and says by its type, and a quote by its audience too,
which of them it is: neither passes for the other, nor for a message between herder and workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from herder.domain.pricing import Rates
from herder.domain.quote_terms import Terms
from herder.errors import HerdError, InvalidQuote, InvalidReceipt
from herder.types import Receipt
from workers.wire import PrivateKey, PublicKey, WireError

ISSUER = "llama-herder"
MAX_TOKEN_CHARS = 65_536
MAX_QUOTE_CHARS = 4_096
_ALGORITHM = "EdDSA"


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of signed thing.

    Attributes:
        what: what people call it.
        audience: whom it is for, or None where that is anybody.
        claims: which must be there.
        error: what is raised for an invalid token.
    """

    what: str
    audience: str | None
    claims: tuple[str, ...]
    most_chars: int
    error: type[HerdError]

    @property
    def typ(self) -> str:
        """What the token's head calls it."""
        return f"{self.what}+jwt"

    def sign(self, claims: Mapping[str, Any], key: PrivateKey, now_s: int) -> str:
        """Return a token of this kind."""
        whole = {"iss": ISSUER, "iat": now_s, **claims}
        if self.audience is not None:
            whole["aud"] = self.audience
        headers = {"kid": key.kid, "typ": self.typ}
        return jwt.encode(whole, key.key, algorithm=_ALGORITHM, headers=headers)

    def read(self, token: str, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
        """Return the claims of a token of this kind.

        Raises:
            HerdError: of the kind's class: it is invalid, changed, or signed by another key.
        """
        if len(token) > self.most_chars:
            raise self.error(f"This is not a signed {self.what}: it is too long.")
        try:
            header = jwt.get_unverified_header(token)
            key = keys.get(str(header.get("kid")))
            if header.get("typ") != self.typ or header.get("alg") != _ALGORITHM:
                raise self.not_one()
            if key is None:
                raise self.error(f"The key that signed this {self.what} is not among those given.")
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[_ALGORITHM],
                issuer=ISSUER,
                audience=self.audience,
                # Times are the caller's to judge, by its own clock.
                options={"require": list(self.claims), "verify_iat": False, "verify_exp": False},
            )
        except jwt.InvalidSignatureError:
            raise self.error(
                f"The signature does not match: this {self.what} was changed."
            ) from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise self.error(f"This is not a signed {self.what}.") from None
        return claims

    def not_one(self) -> HerdError:
        """Return the error of a genuine token of some other kind."""
        return self.error(f"This is a signed message, but not a {self.what} of a herd.")


_RECEIPT = _Kind("receipt", None, ("iss", "iat", "sub"), MAX_TOKEN_CHARS, InvalidReceipt)
_QUOTE = _Kind(
    "quote", "herd-orders", ("iss", "aud", "iat", "exp", "sub"), MAX_QUOTE_CHARS, InvalidQuote
)


def sign_receipt(receipt: Receipt, key: PrivateKey, now_s: int) -> str:
    """Return a receipt as it stands now, signed.

    Args:
        receipt: what it says.
        key: the herder's.
        now_s: the time, in seconds since the epoch; it stands in the token as `iat`.
    """
    return _RECEIPT.sign({"sub": receipt.order, "receipt": receipt.to_dict()}, key, now_s)


def read_receipt(token: str, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """Return the claims of a signed receipt: `receipt`, and `iat`, when it was signed.

    Args:
        token: the JWS in its compact form.
        keys: the herder's public keys, by `kid`.

    Raises:
        InvalidReceipt: it is not a receipt, was changed, or was signed by another key.
    """
    claims = _RECEIPT.read(token, keys)
    if not isinstance(claims.get("receipt"), dict):
        raise _RECEIPT.not_one()
    return claims


class _Quoted(BaseModel):
    """The claims of a quote; `needed` and `fee` are there for whoever reads the token."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    model: str
    words: int = Field(ge=0)
    tokens: int = Field(ge=1)
    prompt_fee: int = Field(ge=1)
    fee_per_token: int = Field(ge=0)
    needed: int
    base: str
    multiplier: str
    fee: int
    automatic: bool
    charge_unused: bool


def sign_quote(terms: Terms, key: PrivateKey, now_s: int) -> str:
    """Return a quote that binds the herd until it expires.

    Args:
        terms: what it says.
        key: the herder's.
        now_s: the time, in seconds since the epoch; it stands in the token as `iat`.
    """
    quoted = _Quoted(
        model=terms.model,
        words=terms.words,
        tokens=terms.tokens,
        prompt_fee=terms.rates.prompt_fee,
        fee_per_token=terms.rates.fee_per_token,
        needed=terms.needed,
        base=str(terms.base),
        multiplier=str(terms.bid_factor),
        fee=terms.fee,
        automatic=terms.automatic,
        charge_unused=terms.charge_unused,
    )
    claims = {"sub": terms.account, "exp": terms.expires_s, "quote": quoted.model_dump()}
    return _QUOTE.sign(claims, key, now_s)


def read_quote(token: object, keys: Mapping[str, PublicKey]) -> Terms:
    """Return the terms of a signed quote, expired or not: that is judged when an order is taken.

    Args:
        token: what a client gave as the quote.
        keys: the herder's public keys that live, by `kid`.

    Raises:
        InvalidQuote: it is not a quote, was changed, or a key signed it that is not among those.
    """
    if not isinstance(token, str):
        raise InvalidQuote("quote must be the signed text of a quote.")
    claims = _QUOTE.read(token, keys)
    try:
        quoted = _Quoted.model_validate(claims.get("quote"))
        return Terms(
            account=str(claims["sub"]),
            model=quoted.model,
            words=quoted.words,
            tokens=quoted.tokens,
            rates=Rates(quoted.prompt_fee, quoted.fee_per_token),
            base=Fraction(quoted.base),
            bid_factor=Fraction(quoted.multiplier),
            automatic=quoted.automatic,
            charge_unused=quoted.charge_unused,
            expires_s=int(claims["exp"]),
        )
    except (ValidationError, ValueError, TypeError, ZeroDivisionError):
        # Another version's: what it promised in words unknown here cannot be kept.
        raise _QUOTE.not_one() from None


def to_jwks(keys: Iterable[PublicKey]) -> dict[str, list[dict[str, str]]]:
    """Public keys as a JWK set (RFC 7517)."""
    return {
        "keys": [{**key.to_jwk(), "kid": key.kid, "alg": _ALGORITHM, "use": "sig"} for key in keys]
    }


def from_jwks(text: str) -> dict[str, PublicKey]:
    """Return the keys of a JWK set, by `kid`; those of other kinds are left out.

    Raises:
        InvalidReceipt: it is not a JWK set.
    """
    try:
        document = json.loads(text)
        entries = document["keys"]
        jwks = [one for one in entries if one.get("crv") == "Ed25519"]
        found = [PublicKey.from_jwk({n: one[n] for n in ("kty", "crv", "x")}) for one in jwks]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, WireError):
        raise InvalidReceipt(
            "The keys are not a JWK set; /.well-known/jwks.json of the herd's gateway provides one."
        ) from None
    return {key.kid: key for key in found}
