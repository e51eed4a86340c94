"""The notes that come with an order: they change nothing about it, and are shown with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_METADATA = 16
MAX_METADATA_NAME_CHARS = 64
MAX_METADATA_CHARS = 512


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of one order, kept and deleted together with its prompt.

    Attributes:
        metadata: the caller's own pairs of name and text.
        request_id: of the call that it was taken by (`X-Request-Id`).
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None


NO_NOTES = Notes()
