"""Ids: what they look like, how one follows from another, and which stripe they fall on.

A transfer's id is its idempotency key, for ever. What must happen once for a hold therefore takes
an id that follows from the hold's, so that a message that comes twice asks for the same transfer
twice, and gets the first one back.
"""

from __future__ import annotations

import re
import zlib
from hashlib import sha1

from ledger.errors import InvalidAccountId, InvalidTransferId
from ledger.model import MAX_ACCOUNT_ID, MAX_ACCOUNT_KIND

_is_uuid = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


def transfer_key(value: object) -> str:
    """Return the id, if it is a UUID in canonical text: two spellings would be two keys.

    Raises:
        InvalidTransferId: It is something else; a `UUID` object too, which `str()` makes one.
    """
    if not isinstance(value, str) or _is_uuid(value) is None:
        raise InvalidTransferId(value)
    return value


def derive(parent_id: str, *words: str) -> str:
    """Return an id that follows from another: `uuid5(parent, "word")`, words joined by a colon.

    Written out (RFC 9562, 5.5), since `uuid.uuid5` takes four times as long by way of its objects,
    and a batch of posts derives a hundred ids.

    Args:
        parent_id: A UUID as text.
        words: What the new id is for, as in `derive(order, "hold", "2")`.

    Raises:
        InvalidTransferId: `parent_id` is not a UUID.
    """
    parent = bytes.fromhex(transfer_key(parent_id).replace("-", ""))
    digest = sha1(parent + ":".join(words).encode(), usedforsecurity=False).digest()
    number = int.from_bytes(digest[:16])
    number = number & ~(0xF << 76) | 5 << 76  # the version
    number = number & ~(0x3 << 62) | 2 << 62  # the variant
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def post_id(hold_id: str) -> str:
    """Return the id of the one post that a hold may have: `uuid5(hold_id, "post")`."""
    return derive(hold_id, "post")


def void_id(hold_id: str) -> str:
    """Return the id of the one void that a hold may have: `uuid5(hold_id, "void")`."""
    return derive(hold_id, "void")


def stripe(hold_id: str, stripes: int) -> int:
    """Return the number of the account, from 0 to `stripes` - 1, that a hold credits.

    A row that every settlement credits is a row that all of them wait for; a post must credit the
    account that its hold named, so the choice is made at the hold. The same on every machine.
    """
    return zlib.crc32(transfer_key(hold_id).encode()) % stripes


def account_text(field: str, value: object) -> str:
    """Return an account's `id` or `kind`, if it is short and printable.

    Raises:
        InvalidAccountId: It is empty, too long, not text, or holds control characters.
    """
    most = MAX_ACCOUNT_KIND if field == "kind" else MAX_ACCOUNT_ID
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise InvalidAccountId(field, value, most)
    return value
