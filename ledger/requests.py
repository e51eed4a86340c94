"""Requests: amounts and tags checked, a draft of the row, and its fingerprint. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from json import JSONDecoder, JSONEncoder
from typing import Any, Literal

from ledger.errors import (
    ExceedsHoldAmount,
    ExceedsRefundable,
    IdempotencyConflict,
    InvalidAmount,
    InvalidPage,
    InvalidTags,
    NotAHold,
    NotRefundable,
    SameAccount,
)
from ledger.ids import account_text, transfer_key
from ledger.model import MAX_TAGS_JSON, MAX_WINSTON, NewTransfer, Transfer

_encode = JSONEncoder(separators=(",", ":"), sort_keys=True).encode
_decode = JSONDecoder().decode


@dataclass(frozen=True, slots=True)
class Draft:
    """A row about to be written.

    Attributes:
        transfer: What it will be.
        tags_json: Its tags as they are stored.
        asked: The amount that the caller named; None for "all of it".
    """

    transfer: Transfer
    tags_json: str
    asked: int | None

    def fingerprint(self) -> str:
        """Return a digest of what was asked, so that a retry is told from another request.

        The time is left out: a retry comes later. No field can hold a line break (`ids.py` refuses
        them, and JSON escapes them), so that two requests never spell the same text.
        """
        t = self.transfer
        text = (
            f"{t.kind}\n{t.debit}\n{t.credit}\n{self.asked}\n{t.hold_id}\n{t.reverses_id}\n"
            f"{self.tags_json}"
        )
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def row(self) -> tuple[object, ...]:
        """Return the parameters of the journal's insert, in its order."""
        t = self.transfer
        return (
            t.id,
            t.kind,
            t.debit,
            t.credit,
            t.amount,
            self.fingerprint(),
            t.hold_id,
            t.held,
            t.reverses_id,
            self.tags_json,
            t.at_us,
        )

    def require_same(self, stored: Transfer, stored_fingerprint: str) -> None:
        """Accept `stored` as what this draft asks for.

        The fingerprint decides. Where it differs but every field is the same (a post of the whole
        hold, once by name and once by amount), the two ask for the same thing after all.

        Raises:
            IdempotencyConflict: Naming the first field that differs.
        """
        if self.fingerprint() == stored_fingerprint:
            return
        ours = self.transfer
        for field in ("kind", "debit", "credit", "amount", "hold_id", "reverses_id", "tags"):
            asked: Any = getattr(ours, field)
            if asked != getattr(stored, field):
                if field == "amount" and self.asked is None:
                    asked = "all that is left"
                raise IdempotencyConflict(ours.id, field, getattr(stored, field), asked)


def draft_transfer(kind: Literal["direct", "pending"], asked: NewTransfer, now_us: int) -> Draft:
    """Return a transfer or a hold, as a caller asks for it.

    Raises:
        InvalidRequest: One of its kinds: the call is wrong.
    """
    transfer_key(asked.id)
    account_text("id", asked.debit)
    account_text("id", asked.credit)
    if asked.debit == asked.credit:
        raise SameAccount(asked.debit)
    tags, tags_json = tags_to_json(asked.tags)
    transfer = Transfer(
        asked.id,
        kind,
        asked.debit,
        asked.credit,
        winston(asked.amount),
        hold_id=None,
        held=None,
        reverses_id=None,
        tags=tags,
        at_us=now_us,
    )
    return Draft(transfer, tags_json, asked.amount)


def draft_resolution(
    kind: Literal["post", "void"],
    transfer_id: str,
    hold: Transfer,
    asked: int | None,
    tags: Mapping[str, str] | None,
    now_us: int,
) -> Draft:
    """Return the post or the void of a hold: between its accounts, with its tags under `tags`.

    Raises:
        NotAHold: `hold` is not a hold.
        ExceedsHoldAmount: More than is held.
        InvalidRequest: One of its kinds: the call is wrong.
    """
    if hold.kind != "pending":
        raise NotAHold(hold.id, hold.kind)
    amount = hold.amount if asked is None else winston(asked)
    if amount > hold.amount:
        raise ExceedsHoldAmount(hold.id, hold.amount, amount)
    merged, tags_json = tags_to_json({**hold.tags, **tags} if tags else hold.tags)
    transfer = Transfer(
        transfer_id,
        kind,
        hold.debit,
        hold.credit,
        amount,
        hold_id=hold.id,
        held=hold.amount,
        reverses_id=None,
        tags=merged,
        at_us=now_us,
    )
    return Draft(transfer, tags_json, asked)


def draft_refund(
    refund_id: str,
    original: Transfer,
    left: int,
    asked: int | None,
    tags: Mapping[str, str] | None,
    now_us: int,
) -> Draft:
    """Return a refund of a transfer: back between its accounts, with its tags under `tags`.

    Args:
        refund_id: The refund's own id.
        original: What is given back.
        left: Winston of it that can still be given back.
        asked: Winston; None for all that is left.
        tags: The caller's own.
        now_us: The time.

    Raises:
        ExceedsRefundable: More than is left, or nothing is.
        NotRefundable: It moved no money, or is a refund.
        InvalidRequest: One of its kinds: the call is wrong.
    """
    if original.kind not in ("direct", "post") or original.reverses_id is not None:
        raise NotRefundable(
            original.id, original.kind if original.reverses_id is None else "refund"
        )
    amount = left if asked is None else winston(asked)
    if not 0 < amount <= left:
        raise ExceedsRefundable(original.id, left, max(1, amount))
    merged, tags_json = tags_to_json({**original.tags, **(tags or {})})
    transfer = Transfer(
        transfer_key(refund_id),
        "direct",
        original.credit,
        original.debit,
        amount,
        hold_id=None,
        held=None,
        reverses_id=original.id,
        tags=merged,
        at_us=now_us,
    )
    return Draft(transfer, tags_json, asked)


def winston(amount: object) -> int:
    """Return an amount that a transfer may have.

    Raises:
        InvalidAmount: It is not an `int` (a bool is not one here) or not within 1 and 2**53 - 1.
    """
    if type(amount) is not int or not 0 < amount <= MAX_WINSTON:
        raise InvalidAmount(amount, MAX_WINSTON)
    return amount


def within(field: str, value: object, least: int, most: int) -> int:
    """Return a bound of a page.

    Raises:
        InvalidPage: It is not an `int` within `least` and `most`.
    """
    if type(value) is not int or not least <= value <= most:
        raise InvalidPage(field, value, least, most)
    return value


def tags_to_json(tags: Mapping[str, str] | None) -> tuple[Mapping[str, str], str]:
    """Return a copy of the tags, and the JSON that is stored: keys sorted, ASCII only.

    Raises:
        InvalidTags: They do not map strings to strings, or are too long.
    """
    if not tags:
        return {}, "{}"
    copy = dict(tags)
    for name, value in copy.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidTags(f"{name!r:.40} or its value is not a string", MAX_TAGS_JSON)
    text = _encode(copy)
    if len(text) > MAX_TAGS_JSON:
        raise InvalidTags(f"they are {len(text)} characters", MAX_TAGS_JSON)
    return copy, text


def json_to_tags(text: str) -> Mapping[str, str]:
    """Return the tags as `tags_to_json` wrote them."""
    tags: dict[str, str] = {} if text == "{}" else _decode(text)
    return tags
