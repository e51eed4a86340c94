"""The keys that sign messages: Ed25519 (RFC 8037), as JWKs, named by their thumbprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm

from workers.wire.errors import WireError


def thumbprint(public_jwk: Mapping[str, Any]) -> str:
    """Return the `kid` of a key: its JWK thumbprint (RFC 7638), shortened to 128 bits of hex."""
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
            WireError: it is not an Ed25519 public key.
        """
        try:
            key = OKPAlgorithm.from_jwk(dict(jwk))
        except (jwt.InvalidKeyError, KeyError, TypeError, ValueError) as error:
            raise WireError("bad_key", "not a JWK of an Ed25519 key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise WireError("bad_key", "not the public half of an Ed25519 key")
        return cls(thumbprint(jwk), key)

    def to_jwk(self) -> dict[str, str]:
        """Return the key as a JWK that may be shown to anybody."""
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
            WireError: it is not an Ed25519 private key.
        """
        try:
            key = OKPAlgorithm.from_jwk(dict(jwk))
        except (jwt.InvalidKeyError, KeyError, TypeError, ValueError) as error:
            raise WireError("bad_key", "not a JWK of an Ed25519 key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise WireError("bad_key", "not the private half of an Ed25519 key")
        return cls._of(key)

    def to_jwk(self) -> dict[str, str]:
        """Return the key as a JWK that only its owner may see."""
        jwk = OKPAlgorithm.to_jwk(self.key, as_dict=True)
        return {name: str(jwk[name]) for name in ("kty", "crv", "x", "d")}

    @property
    def public(self) -> PublicKey:
        """What others check this key's signatures with."""
        return PublicKey(self.kid, self.key.public_key())
