"""The address of a herder elsewhere, and the API key to use there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from herder.errors import SetupError

MAX_KEY_CHARS = 4096
EXAMPLE = "https://herd.example"


@dataclass(frozen=True, slots=True)
class Address:
    """A gateway and a key for it.

    Attributes:
        url: of the gateway, without a slash at its end.
        api_key: as `herd key create` showed it.
    """

    url: str
    api_key: str = field(repr=False)

    @classmethod
    def of(cls, url: str, api_key: str, *, called: str = "HERD_URL") -> Address:
        """Check both before anything is sent.

        Args:
            url: of the gateway.
            api_key: for it.
            called: what the address is called in the sentence that refuses it.

        Raises:
            SetupError: the address or the key is not valid.
        """
        bare = url.strip().rstrip("/")
        try:
            parts = urlsplit(bare)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
            good = good and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if not good or not bare.isprintable() or " " in bare:
            raise SetupError(f"{called} must be the address of a gateway, such as {EXAMPLE}.")
        if parts.username is not None or parts.query or parts.fragment:
            raise SetupError(
                f"{called} must be just an address, such as {EXAMPLE}, without a user, ? or #; "
                "put the API key into HERD_API_KEY."
            )
        key = api_key.strip()
        if not re.fullmatch(r"[!-~]+", key) or len(key) > MAX_KEY_CHARS:
            raise SetupError(
                "This is not a valid API key; it begins with herd_, and the herd's operator "
                "creates it."
            )
        return cls(bare, key)


def named_address(url: str | None = None, key_file: Path | None = None) -> Address | None:
    """Return the herder elsewhere that the environment or a command line names.

    None if neither does.

    The key is never an argument of a command: everybody on the machine can read those.

    Args:
        url: goes before `HERD_URL`.
        key_file: a file with the API key in it; goes before `HERD_API_KEY`.

    Raises:
        SetupError: the address or the key is not valid, or there is no key.
    """
    called = "HERD_URL" if url is None else "--url"
    where = os.environ.get("HERD_URL", "") if url is None else url
    if url is None and not where:
        if key_file is not None:
            raise SetupError(
                "--api-key-file is only for a herder elsewhere; give its address with --url."
            )
        return None
    if key_file is not None:
        return Address.of(where, _key_of(key_file), called=called)
    key = os.environ.get("HERD_API_KEY", "")
    if not key.strip():
        # What is wrong with the address is told first.
        Address.of(where, "-", called=called)
        is_named = "HERD_URL is set" if url is None else "--url is given"
        raise SetupError(f"{is_named}, so HERD_API_KEY must hold an API key for that herder.")
    return Address.of(where, key, called=called)


def _key_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_CHARS + 3)
        return content.decode("ascii")
    except OSError as error:
        raise SetupError(
            f"The API key file {str(path)!r} cannot be read ({error.strerror})."
        ) from None
    except UnicodeDecodeError:
        raise SetupError(f"The file {str(path)!r} does not hold an API key.") from None
