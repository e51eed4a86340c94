"""The order of a call to one of OpenAI's routes: under which key it is bought, and its caller.

Whoever repeats a call under its key, be it their own (`Idempotency-Key`) or one that the gateway
gave to a call whose client marks its repetitions, reads the order that there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from herder.db.outages import CommitUnknown
from herder.domain.fitting import TokenWish
from herder.domain.notes import Notes
from herder.domain.order import Order, State
from herder.domain.receipts import receipt_of
from herder.errors import HerdError
from herder.gateway.auth import GatewayContext
from herder.gateway.outages import accept
from herder.gateway.repetitions import count_of, digest_of
from herder.gateway.schemas.openai_call import Asked
from herder.gateway.streams.hang_up import HangUp
from herder.interface import OrderCall
from herder.orders.intake import CallerGone
from herder.store.api_keys import ApiKey
from herder.types import Receipt


class Purchase:
    """An order whose answer a caller waits for, until one of its methods is called.

    Args:
        context: of the gateway.
        asked: the call.
        receipt: of its order, as it was taken or found.
        has_key: whether the caller named an idempotency key.
        digest: of the call, where its client marks repetitions and it names no key.
        key: the idempotency key that it was bought under.
        is_new: whether the order was certainly made for this call.
    """

    def __init__(
        self,
        context: GatewayContext,
        asked: Asked,
        receipt: Receipt,
        *,
        has_key: bool,
        digest: str | None,
        key: str | None,
        is_new: bool,
    ) -> None:
        self._context = context
        self._asked = asked
        self._has_key = has_key
        self._digest = digest
        self._key = key
        self._reading = context.readers.enter(receipt.order, is_new=is_new)
        self.receipt = receipt

    def end(self) -> None:
        """Wait no longer: the order has ended, or goes on."""
        self._reading.close()

    def leave(self, *, has_begun: bool) -> None:
        """Do what the call said, or its route says, of a caller who disconnects.

        Args:
            has_begun: whether the answer had begun: then no client repeats the call by itself.
        """
        is_repeated = self._digest is not None and not has_begun
        if self._asked.on_disconnect == "cancel":
            self._reading.leave(may_return=self._has_key or is_repeated)
        else:
            self._reading.close()
        if is_repeated:
            self._lose()

    def interrupt(self) -> None:
        """Let the order go on without an answer here: this gateway is being stopped."""
        self._reading.close()
        self._lose()

    def _lose(self) -> None:
        if self._digest is not None and self._key is not None:
            self._context.repetitions.lose(self._digest, self._key)


async def buy(
    context: GatewayContext,
    api_key: ApiKey,
    asked: Asked,
    headers: Mapping[str, str],
    request_id: str | None,
    line: HangUp,
) -> Purchase:
    """Take the order of a call, or find the one that it repeats.

    Taking may have to wait: for a thread, for a lock, for a database that is away, for the end of
    what is being cancelled. Of a caller who disconnects meanwhile no order is taken, unless the
    call said that it goes on.

    Args:
        context: of the gateway.
        api_key: whose call it is.
        asked: the call.
        headers: its headers.
        request_id: the id that it is answered with.
        line: notices when its caller disconnects.

    Raises:
        CallerGone: its caller disconnected, and no order was taken.
        HerdError: it was not taken; as `herder.gateway.outages.accept`.
    """
    given = headers.get("idempotency-key")
    call: OrderCall = {
        **asked.call,
        "model": context.model(asked.call["model"]),
        "account": api_key.account,
    }
    count = count_of(headers) if given is None and context.settings.join_retries else None
    digest, key = None, given
    if count is not None:
        digest = digest_of(api_key.id, _everything(asked, call))
        key = await context.repetitions.key_of(digest, count)
    notes = Notes(asked.metadata, request_id)
    is_wanted = None if asked.on_disconnect == "continue" else lambda: not line.is_gone
    take = partial(_take, context, api_key, asked, call, given, notes, is_wanted)
    try:
        order = await take(key)
        if order.call_off is not None:
            # It is being cancelled; once it is, its key may buy again.
            await context.follower.wait(order.id, 2 * context.settings.lease_s)
            order = await take(key)
        if digest is not None and _is_unanswered(order):
            key = context.repetitions.new_key()
            order = await take(key)
    except CommitUnknown as error:
        if digest is not None:
            context.herd.cancellations.remember(str(error.data["order"]), is_taken=False)
        raise
    except (HerdError, CallerGone):
        if digest is not None and count and key is not None:
            context.repetitions.lose(digest, key)
        raise
    return Purchase(
        context,
        asked,
        receipt_of(order),
        has_key=given is not None,
        digest=digest,
        key=key,
        is_new=given is None and not count,
    )


async def _take(
    context: GatewayContext,
    api_key: ApiKey,
    asked: Asked,
    call: OrderCall,
    given: str | None,
    notes: Notes,
    is_wanted: Callable[[], bool] | None,
    key: str | None,
) -> Order:
    named: OrderCall = {**call, "idempotency_key": key}
    return await accept(
        context.herd.cancellations,
        partial(
            context.herd.take,
            asked.prompt,
            None,
            named,
            api_key=api_key.id,
            notes=notes,
            wish=TokenWish(asked.tokens, context.settings.default_tokens or None),
            is_wanted=is_wanted,
        ),
        has_key=given is not None,
        continues=asked.on_disconnect == "continue",
    )


def _everything(asked: Asked, call: OrderCall) -> list[Any]:
    return [
        asked.kind,
        asked.prompt,
        asked.tokens,
        call,
        asked.stream,
        asked.include_usage,
        asked.on_disconnect,
        dict(asked.metadata),
    ]


def _is_unanswered(order: Order) -> bool:
    """Return whether an order has ended without an answer; its run limit's end leaves one."""
    return (
        order.state.ended
        and order.state is not State.COMPLETED
        and order.finish_reason != "deadline"
    )
