"""The keys of the simulation: the same in every run, so that every signature is."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from workers.wire import PrivateKey


def fixed_key(name: str) -> PrivateKey:
    """The key of that name."""
    seed = sha256(name.encode()).digest()
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return PrivateKey.from_jwk(
        {"kty": "OKP", "crv": "Ed25519", "x": _text(public), "d": _text(seed)}
    )


def _text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


HERDER_KEY = fixed_key("herder")
WORKER_KEYS = [fixed_key(f"worker {number}") for number in range(8)]
FORGERS_KEY = WORKER_KEYS[-1]
"""A key that may join, and whose owner does not behave."""
STRANGER_KEY = fixed_key("stranger")
