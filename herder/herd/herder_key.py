"""The herder's private key, which signs what goes to workers and clients."""

from __future__ import annotations

import json

from herder.errors import SetupError
from herder.settings import Settings
from workers.transport.private_files import close_to_others
from workers.wire import PrivateKey, WireError


def load_herder_key(settings: Settings) -> PrivateKey:
    """Return the herder's private key.

    Raises:
        SetupError: the file is missing, or is not a key.
    """
    close_to_others(settings.key_path)
    try:
        return PrivateKey.from_jwk(json.loads(settings.key_path.read_text()))
    except FileNotFoundError:
        raise SetupError(
            f"The herder's key is missing at {settings.key_path}; `herd init` creates it."
        ) from None
    except (OSError, ValueError, WireError):
        raise SetupError(
            f"The file {settings.key_path} cannot be read as the herder's key."
        ) from None
