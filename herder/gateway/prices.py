"""The price of the next order, told with answers and on the gateway's page.

It is looked at once a second at most, beside the calls: whose answer tells it waits for no database
while others ask, and a moment at most where nobody asked for a while. A quote binds; this only says
what the herd would take now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herder.domain.receipts import decimal_text
from herder.errors import HerdUnavailable, SetupError
from herder.market.order_price import GoingPrice

_log = structlog.get_logger("herder.gateway")

HEADER = "X-Next-Price"
KEPT_S = 1.0
"""Seconds after which the prices are looked at anew."""
OLD_S = 3.0
"""Seconds after which they are not told any more."""
PATIENCE_S = 0.25
"""Seconds that an answer waits for a look at them."""
PLACES = 9
"""Decimal places of the multiplier."""
MODEL = "priced_model"
"""The name in a call's state of the model that it asks for."""
_PATHS = ("/v1/orders", "/v1/chat/completions", "/v1/completions")
_NAME = HEADER.lower().encode()


def digits(price: GoingPrice) -> str:
    """Return a price's multiplier as a decimal, rounded up in its last place.

    So the fee that a caller works out with it is never below what is paid, and the same wherever
    what the order needs, times the multiplier's denominator, is at most 10**9.
    """
    return decimal_text(price.multiplier, PLACES)


class Prices:
    """The going prices, at most some seconds old.

    Args:
        look: reads them.
        clock_s: a clock that only rises, in seconds.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Sequence[GoingPrice]]],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._clock_s = clock_s
        self._found: Sequence[GoingPrice] = ()
        self._headers: dict[str | None, bytes] = {}
        self._looked_s = self._tried_s = self._began_s = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def header(self, model: str | None) -> bytes | None:
        """Return the header's value, or None where nothing is known.

        Args:
            model: the price of this one, else of the herd's own.
        """
        if not await self._is_known():
            return None
        return self._headers.get(model) or self._headers.get(None)

    async def all(self) -> Sequence[GoingPrice]:
        """Return the prices of all models; none where nothing is known."""
        return self._found if await self._is_known() else ()

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _is_known(self) -> bool:
        now_s = self._clock_s()
        if now_s - self._looked_s < KEPT_S:
            return True
        if self._task is None and now_s - self._tried_s >= KEPT_S:
            self._began_s = now_s
            self._task = asyncio.create_task(self._try(), name="prices")
        if now_s - self._looked_s < OLD_S:
            return True
        left_s = PATIENCE_S - (now_s - self._began_s)
        if self._task is not None and left_s > 0:
            await asyncio.wait([self._task], timeout=left_s)
        return self._clock_s() - self._looked_s < OLD_S

    async def _try(self) -> None:
        try:
            found = await self._look()
        except (HerdUnavailable, SetupError):
            pass  # said by who needs the database; the answer goes without
        except Exception as error:  # noqa: BLE001 (logged; no answer fails for it)
            _log.error("prices_unread", error=type(error).__name__)
        else:
            self._found = found
            headers: dict[str | None, bytes] = {one.model: _told(one) for one in found}
            own = next((one.model for one in found if one.is_default), None)
            self._headers = headers | ({None: headers[own]} if own is not None else {})
            self._looked_s = self._clock_s()
        finally:
            self._tried_s = self._clock_s()
            self._task = None


def _told(price: GoingPrice) -> bytes:
    rates = price.rates
    return (
        f'model="{price.model}", multiplier={digits(price)}, '
        f"prompt_fee={rates.prompt_fee}, fee_per_token={rates.fee_per_token}"
    ).encode()


class Priced:
    """Tells the price of the next order with each answer of the routes that sell."""

    def __init__(self, app: ASGIApp, prices: Prices) -> None:
        self._app = app
        self._prices = prices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        if scope["type"] != "http" or not scope["path"].startswith(_PATHS):
            await self._app(scope, receive, send)
            return

        async def priced(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = await self._prices.header(scope["state"].get(MODEL))
                if told is not None:
                    message["headers"] = [*message["headers"], (_NAME, told)]
            await send(message)

        await self._app(scope, receive, priced)
