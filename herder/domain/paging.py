"""Pages: what a list hands out at once, and where the next page begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from herder.errors import InvalidRequest, shown

Item = TypeVar("Item")
Cursor = TypeVar("Cursor")

MAX_PAGE = 1000
"""The most that one call lists, where nothing less is said."""

MAX_HTTP_PAGE = 100
"""The most that one answer over HTTP lists, but for usage, whose rows are short."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item, Cursor]):
    """A page of a list.

    Attributes:
        items: what is on it, in the list's order.
        next: the cursor of the page after it; None on the last page.
    """

    items: list[Item]
    next: Cursor | None


def require_limit(limit: object, most: int = MAX_PAGE) -> None:
    """Refuse a number of items that is none.

    Args:
        limit: how many items a page may hold, as it was given.
        most: the largest number that is allowed.

    Raises:
        InvalidRequest: it is not a whole number from 1 to `most`.
    """
    if type(limit) is not int or not 1 <= limit <= most:
        raise InvalidRequest(f"limit must be 1 to {most}, not {shown(limit)}.")


def page_of(
    found: Sequence[Item], limit: int, cursor: Callable[[Item], Cursor]
) -> Page[Item, Cursor]:
    """Make a page of what was found.

    Args:
        found: the items from where the page begins: one more than `limit`, if there are so many.
        limit: how many the page may hold.
        cursor: what of an item names it to the call that asks for those after it.
    """
    items = list(found[:limit])
    more = len(found) > limit
    return Page(items, cursor(items[-1]) if more else None)
