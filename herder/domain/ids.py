"""Ids: drawn, or following from what they are for."""

from __future__ import annotations

from uuid import UUID, uuid4, uuid5

from herder.domain.parsing import parse_key

_CALLS = UUID("5d1d7f39-6c4b-5a52-9d0c-0e4f3c1b2a77")
"""The namespace of the ids of operators' calls; drawn once, and the same for ever."""


def new_uuid() -> str:
    """Return a fresh id from the system's randomness."""
    return str(uuid4())


def hold_id(order_id: str, number: int) -> str:
    """Return the id of an order's hold; a re-bid voids one and places the next."""
    return str(uuid5(UUID(order_id), f"hold:{number}"))


def call_id(operator: str, what: str, key: object) -> str:
    """Return the id of what a call makes.

    The same for the same idempotency key, so that it is made once.

    Args:
        operator: the account whose API key calls; each has keys of its own.
        what: the kind of call; each has keys of its own.
        key: the idempotency key, or None for a call that is made for the first time.

    Raises:
        InvalidIdempotencyKey: the key is not valid.
    """
    parsed = parse_key(key)
    return str(uuid4()) if parsed is None else str(uuid5(_CALLS, f"{operator}\n{what}\n{parsed}"))
