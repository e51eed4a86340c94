"""The calls of a buyer to a herd, on its machine or over HTTP.

`LocalHerd` (`herder.local`) and `RemoteHerd` (`herder.client.http`) both are such a herd; the
library and the `herd` command are written against this, and ask neither where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict, Unpack, cast

from herder.errors import (
    HerdError,
    OrderCancelled,
    OrderEnded,
    OrderExpired,
    OrderFailed,
    OrderSetAside,
    sentence,
)
from herder.types import Info, NamedBalance, Quote, Receipt, Result, StatementEntry, TokenCount

if TYPE_CHECKING:
    from workers.wire import Effort, PublicKey, TemplateArg


class SamplingOptions(TypedDict, total=False):
    """The sampling parameters: the fields of `workers.wire.Sampling`, None for the herd's default.

    This is the one list of them on the way of a call. A test holds it, the signature of
    `herder.submit`, the command and the gateway's bodies to the fields of `Sampling`.
    """

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repeat_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    logit_bias: dict[int, float] | None
    ignore_eos: bool | None
    grammar: str | None
    json_schema: str | None
    regex: str | None
    choice: Sequence[str] | None


SAMPLING_NAMES = frozenset(SamplingOptions.__annotations__)


class _Asked(TypedDict, total=False):
    fee: int | Literal["base"] | None
    multiplier: float | str | None
    max_fee: int | None
    model: str | None
    messages: Sequence[Mapping[str, str]] | None


class CountOptions(TypedDict, total=False):
    """The arguments of `count_tokens` besides the prompt; see `herder.count_tokens`."""

    model: str | None
    messages: Sequence[Mapping[str, str]] | None
    raw: bool
    special: bool
    continue_final_message: bool
    reasoning_effort: Effort | None
    chat_template_kwargs: Mapping[str, TemplateArg] | None


class QuoteOptions(_Asked, total=False):
    """The arguments of `quote` over HTTP besides prompt and tokens; see `herder.quote`."""

    bids: Sequence[Mapping[str, int | float | str]] | None


class QuoteCall(QuoteOptions, total=False):
    """The arguments of a herd's quote besides prompt and tokens."""

    account: str | None


class _Ordered(_Asked, total=False):
    raw: bool
    special: bool
    continue_final_message: bool
    reasoning_effort: Effort | None
    chat_template_kwargs: Mapping[str, TemplateArg] | None
    stop: str | Sequence[str] | None
    reference: str | None
    idempotency_key: str | None
    start_by: datetime | str | None
    run_limit_s: int | None


class OrderOptions(_Ordered, SamplingOptions, total=False):
    """The arguments of `submit` over HTTP besides prompt and tokens; see `herder.submit`."""

    quote: str | None


class OrderArguments(_Ordered, total=False):
    """The arguments of `herder.domain.parsing.parse_submission`, as the caller gave them."""

    sampling: SamplingOptions


class OrderCall(OrderArguments, total=False):
    """The arguments of a herd's order besides prompt and tokens, on their way to order intake.

    Its values are judged by `herder.domain.parsing.parse_submission`; here are its names, and the
    types that a program in Python may give.
    """

    account: str | None
    quote: str | None


def order_call_of(options: OrderOptions) -> OrderCall:
    """Gather the sampling parameters of a call in which they stand beside the others."""
    sampling = {name: value for name, value in options.items() if name in SAMPLING_NAMES}
    others = {name: value for name, value in options.items() if name not in SAMPLING_NAMES}
    return cast(OrderCall, {**others, "sampling": sampling})


class BuyerHerd(Protocol):
    """A herd as a buyer sees it.

    Errors are those of `herder.errors` wherever it is. An account that is None is the buyer's
    own: `HERD_ACCOUNT` beside the herd, that of the API key over HTTP.
    """

    def submit(self, prompt: str | None, tokens: int | None, **call: Unpack[OrderCall]) -> Receipt:
        """Take an order; arguments as `herder.submit`."""

    def quote(self, prompt: str | None, tokens: int | None, **call: Unpack[QuoteCall]) -> Quote:
        """Return the price of an order."""

    def count_tokens(self, prompt: str | None, **asked: Unpack[CountOptions]) -> TokenCount:
        """Count the tokens of a prompt."""

    def info(self) -> Info:
        """Return the state of the herd."""

    def attended(self, model: str) -> bool:
        """Return whether a worker of this model is there, as far as can be told."""

    def obstacle(self) -> str | None:
        """Return the reason for which no order is run now, whatever workers there are.

        None if nothing is known to be wrong.
        """

    def receipt(self, order_id: str) -> Receipt:
        """Return an order's receipt as it stands."""

    def signed_receipt(self, order_id: str) -> str:
        """Return the same as a JWS that the herder signed."""

    def public_keys(self) -> Mapping[str, PublicKey]:
        """Return the public keys that verify signed receipts, by `kid`."""

    def answer(self, order_id: str) -> Result:
        """Return an order's answer so far, however it ended."""

    def result(self, order_id: str, timeout_s: float | None) -> Result:
        """Wait for an order's end."""

    def stream(self, order_id: str) -> Iterator[str]:
        """Yield an order's text as it comes."""

    def orders(
        self,
        *,
        account: str | None = None,
        state: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Receipt]:
        """Orders, the newest first, at most `herder.domain.paging.MAX_PAGE`."""

    def cancel(self, order_id: str) -> Receipt:
        """End an order."""

    def rebid(self, order_id: str, fee: int) -> Receipt:
        """Raise an order's fee."""

    def balance(self, account: str | None = None) -> NamedBalance:
        """Return an account's balance."""

    def statement(
        self, account: str | None = None, *, after: int = 0, limit: int = 100
    ) -> list[StatementEntry]:
        """Return an account's statement, oldest first.

        At most `herder.domain.paging.MAX_PAGE` entries.
        """

    def call_back(
        self,
        order_id: str,
        callback: Callable[[str], object] | None,
        on_error: Callable[[HerdError], object] | None,
    ) -> None:
        """Call one of them at an order's end."""

    def close(self) -> None:
        """Give the connections back."""


_ENDS: dict[str, type[OrderEnded]] = {
    "failed": OrderFailed,
    "cancelled": OrderCancelled,
    "expired": OrderExpired,
}


def raise_if_not_completed(result: Result) -> None:
    """Raise the error of an order that ended otherwise.

    Raises:
        OrderFailed, OrderCancelled, OrderExpired: with the result.
        OrderSetAside: it has not ended, and does not by itself.
    """
    receipt = result.receipt
    if receipt.state == "set_aside":
        raise OrderSetAside(
            f"Order {result.order} could not be settled, and the herd's operators have to look at "
            f"it. Until they have decided, its fee of {receipt.held} winston stays held and "
            f"nothing is charged; ask for the order again later.",
            result,
        )
    ended = _ENDS.get(receipt.state)
    if ended is None:
        return
    why = str((receipt.failure or {}).get("message", "")).strip()
    money = (
        f"{receipt.charged} winston were charged and {receipt.returned} returned."
        if receipt.charged
        else f"All {receipt.returned} winston were returned."
    )
    raise ended(
        f"Order {result.order} {receipt.state}{': ' + sentence(why) if why else '.'} {money}",
        result,
    )
