"""The secrets that sign an endpoint's messages: how they are kept and used.

A secret reads `whsec_` and 256 bits in base64, as the Standard Webhooks specification has it. It
signs, so that it must be kept whole, and not only its hash: it is sealed with AES-GCM under a key
that is derived from the herder's private key, for the endpoint that it belongs to. Who has only the
database (a backup, say) has no secret; who has the herder's key as well has them all.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from standardwebhooks import Webhook

from herder.errors import SetupError
from workers.wire import PrivateKey

PREFIX = "whsec_"
SECRET_BYTES = 32
NONCE_BYTES = 12
_PURPOSE = b"llama-herder webhook secrets 1"


def new_secret(draw: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a fresh secret."""
    return PREFIX + base64.b64encode(draw(SECRET_BYTES)).decode()


class Sealer:
    """Seals secrets for the database, and opens them. Safe among threads."""

    def __init__(
        self, key: PrivateKey, *, draw: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        """Derive the sealing key.

        Args:
            key: the herder's. Herders that share a database share it, or each opens only what was
                sealed under its own.
            draw: where nonces come from.
        """
        private = base64.urlsafe_b64decode(key.to_jwk()["d"] + "==")
        derived = HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(private)
        self._cipher = AESGCM(derived)
        self._draw = draw
        self.kid = key.kid

    def seal(self, secret: str, endpoint: str) -> str:
        """Return a secret as it is stored."""
        nonce = self._draw(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.encode(), endpoint.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, endpoint: str) -> str:
        """Return a secret that was stored.

        Raises:
            SetupError: it was sealed under another key, or for another endpoint.
        """
        try:
            raw = base64.b64decode(sealed, validate=True)
            opened = self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], endpoint.encode())
        except (ValueError, InvalidTag):
            raise SetupError(
                f"The secret of webhook {endpoint} was not sealed with this herder's key; `herd "
                f"webhooks rotate {endpoint}` creates a new one."
            ) from None
        return opened.decode()


def sign(message: str, at_s: int, body: bytes, keys: Sequence[str]) -> str:
    """Return the signature header: one for each secret that lives.

    Source: Standard Webhooks, "Signature scheme"; each is made by the specification's own package.

    Args:
        message: the message's id.
        at_s: when it is sent, in seconds since the epoch.
        body: what is sent: JSON in UTF-8.
        keys: the secrets, the newest first.
    """
    at, text = datetime.fromtimestamp(at_s, UTC), body.decode()
    return " ".join(Webhook(key).sign(message, at, text) for key in keys)
