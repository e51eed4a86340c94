"""SQL about the text that is kept of an order, and the notes that came with it."""

from __future__ import annotations

import json

from sqlalchemy import Connection, bindparam, select

from herder.db.tables import order_text
from herder.domain.kept import NO_TEXT, KeptText
from herder.domain.notes import NO_NOTES, Notes

_KEPT = select(
    order_text.c.answer,
    order_text.c.reasoning,
    order_text.c.reasoning_tokens,
    order_text.c.notes,
).where(order_text.c.order_id == bindparam("id"))


def to_text(notes: Notes) -> str | None:
    """Return notes as they are stored; None where there are none."""
    kept = {"metadata": dict(notes.metadata), "request_id": notes.request_id}
    given = {name: value for name, value in kept.items() if value}
    return json.dumps(given) if given else None


def from_text(stored: str | None) -> Notes:
    """Read notes as they were stored; what cannot be read is no note."""
    try:
        found = json.loads(stored or "{}")
    except (ValueError, RecursionError):
        return NO_NOTES
    if not isinstance(found, dict):
        return NO_NOTES
    metadata, request_id = found.get("metadata"), found.get("request_id")
    pairs = metadata.items() if isinstance(metadata, dict) else ()
    return Notes(
        {name: value for name, value in pairs if isinstance(value, str)},
        request_id if isinstance(request_id, str) else None,
    )


def get_kept_text(connection: Connection, order_id: str) -> KeptText:
    """Return the text that an order ended with, and what was noted with it."""
    row = connection.execute(_KEPT, {"id": order_id}).one_or_none()
    if row is None:
        return NO_TEXT
    return KeptText(
        row.answer or "",
        row.reasoning or "",
        row.reasoning_tokens or 0,
        from_text(row.notes),
    )
