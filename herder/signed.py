"""Signed receipts: a JWS (RFC 7515) that anybody can check offline with the herder's keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jwt

from herder.errors import InvalidReceipt
from herder.receipts import Receipt
from workers.wire import PrivateKey, PublicKey, WireError

ISSUER = "llama-herder"
TYPE = "receipt+jwt"
MAX_TOKEN_CHARS = 65_536
_ALGORITHM = "EdDSA"


def sign_receipt(receipt: Receipt, key: PrivateKey, now_s: int) -> str:
    """A receipt as it stands now, signed.

    Args:
        receipt: what it says.
        key: the herder's.
        now_s: the time, in seconds since the epoch; it stands in the token as `iat`.
    """
    claims = {"iss": ISSUER, "iat": now_s, "sub": receipt.order, "receipt": receipt.to_dict()}
    headers = {"kid": key.kid, "typ": TYPE}
    return jwt.encode(claims, key.key, algorithm=_ALGORITHM, headers=headers)


def read_receipt(token: str, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """The claims of a signed receipt: `receipt`, and `iat`, when it was signed.

    Args:
        token: the JWS in its compact form.
        keys: the herder's public keys, by `kid`.

    Raises:
        InvalidReceipt: it is none, it was changed, or a key signed it that is not among those.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise InvalidReceipt("This is no signed receipt: it is too long.")
    try:
        header = jwt.get_unverified_header(token)
        key = keys.get(str(header.get("kid")))
        if header.get("typ") != TYPE or header.get("alg") != _ALGORITHM:
            raise InvalidReceipt("This is a signed message, but no receipt of a herd.")
        if key is None:
            raise InvalidReceipt("The key that signed this receipt is not among those given.")
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[_ALGORITHM],
            issuer=ISSUER,
            options={"require": ["iss", "iat", "sub"], "verify_iat": False},
        )
    except jwt.InvalidSignatureError:
        raise InvalidReceipt("The signature does not fit: this receipt was changed.") from None
    except jwt.PyJWTError:
        raise InvalidReceipt("This is no signed receipt.") from None
    if not isinstance(claims.get("receipt"), dict):
        raise InvalidReceipt("This is a signed message, but no receipt of a herd.")
    return claims


def to_jwks(keys: Iterable[PublicKey]) -> dict[str, list[dict[str, str]]]:
    """Public keys as a JWK set (RFC 7517)."""
    return {
        "keys": [{**key.to_jwk(), "kid": key.kid, "alg": _ALGORITHM, "use": "sig"} for key in keys]
    }


def from_jwks(text: str) -> dict[str, PublicKey]:
    """The keys of a JWK set, by `kid`; those of other kinds are left out.

    Raises:
        InvalidReceipt: it is no JWK set.
    """
    try:
        document = json.loads(text)
        entries = document["keys"]
        jwks = [one for one in entries if one.get("crv") == "Ed25519"]
        found = [PublicKey.from_jwk({n: one[n] for n in ("kty", "crv", "x")}) for one in jwks]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, WireError):
        raise InvalidReceipt("The keys are no JWK set; /.well-known/jwks.json gives one.") from None
    return {key.kid: key for key in found}
