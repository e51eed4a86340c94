"""The library that a user's program imports.

    from herder import submit

    order = submit("What is the meaning of life?", 20, fee=100)
    for text in order.stream():
        print(text, end="")
    print(order.result().receipt.charged)

The functions connect at first use, with the settings of `HERD_HOME`, and again after a fork. Where
`HERD_URL` is set they go over HTTP to the gateway there, with the key in `HERD_API_KEY`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from herder.client.optional import needing
from herder.client.order import Order
from herder.errors import HerdError
from herder.interface import BuyerHerd
from herder.types import Info, Quote, TokenCount

if TYPE_CHECKING:
    from herder.client.http.address import Address
    from herder.client.http.async_client import AsyncClient as AsyncClient
    from herder.client.http.client import Client as Client
    from workers.wire import Effort, TemplateArg

Messages = Sequence[dict[str, str]]
BidAsked = Mapping[str, int | float | str]
"""A bid to be compared: `{"fee": 100}` or `{"multiplier": 1.5}`."""


_lock = threading.Lock()
_connected: tuple[int, BuyerHerd] | None = None


def connect() -> BuyerHerd:
    """Return the connection of this process, made at first use.

    Raises:
        SetupError: there is no herd in the home folder; `herd init` makes one. Or `HERD_URL` is
            set and `HERD_API_KEY` is not.
    """
    global _connected
    with _lock:
        if _connected is None or _connected[0] != os.getpid():
            # The parent's connections are the parent's: sharing them would mix their answers.
            _connected = (os.getpid(), _connect())
        return _connected[1]


def _connect() -> BuyerHerd:
    from herder.client.http.address import named_address

    return open_herd(named_address())


def open_herd(elsewhere: Address | None) -> BuyerHerd:
    """Return a herd to buy from: the one at an address, or this machine's.

    Raises:
        SetupError: there is no herd in the home folder, or only the client is installed.
    """
    if elsewhere is not None:
        from herder.client.http.remote_herd import RemoteHerd

        return RemoteHerd(elsewhere.url, elsewhere.api_key)
    with needing("herder", "; or use a herder elsewhere: set HERD_URL and HERD_API_KEY"):
        from herder.local.local_herd import LocalHerd
        from herder.settings import load_settings

    return LocalHerd(load_settings())


def __getattr__(name: str) -> Any:
    """Return the HTTP clients, loaded when they are asked for: httpx takes a tenth of a second."""
    if name == "Client":
        from herder.client.http.client import Client

        return Client
    if name == "AsyncClient":
        from herder.client.http.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def submit(
    prompt: str | None = None,
    tokens: int | None = None,
    *,
    fee: int | Literal["base"] | None = None,
    multiplier: float | str | None = None,
    max_fee: int | None = None,
    account: str | None = None,
    model: str | None = None,
    messages: Messages | None = None,
    raw: bool = False,
    special: bool = False,
    continue_final_message: bool = False,
    reasoning_effort: Effort | None = None,
    chat_template_kwargs: Mapping[str, TemplateArg] | None = None,
    stop: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    repeat_penalty: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    seed: int | None = None,
    logit_bias: dict[int, float] | None = None,
    ignore_eos: bool | None = None,
    grammar: str | None = None,
    json_schema: str | None = None,
    regex: str | None = None,
    choice: Sequence[str] | None = None,
    reference: str | None = None,
    idempotency_key: str | None = None,
    start_by: datetime | str | None = None,
    run_limit_s: int | None = None,
    quote: str | None = None,
    callback: Callable[[str], object] | None = None,
    on_error: Callable[[HerdError], object] | None = None,
) -> Order:
    """Submit a paid prompt.

    Args:
        prompt: the text; white space is a prompt, an empty text is not.
        tokens: the most tokens to generate; unused ones are not paid.
        fee: winston offered; `"base"` for exactly what is needed, whatever others paid; None for
            the automatic fee, which follows the orders before.
        multiplier: a factor on the fee; `fee=100, multiplier=2` offers 200, and with `fee="base"`
            twice what is needed. (In a receipt, `multiplier` is the whole fee divided by what was
            needed, and this one is `bid_factor`.)
        max_fee: winston above which nothing is submitted.
        account: who pays; None for `HERD_ACCOUNT`.
        model: its name; None for the herd's default.
        messages: in place of a prompt, turns such as `{"role": "user", "content": "Hi"}`.
        raw: the prompt reaches the model without its chat template.
        special: what a raw prompt writes as a control token is that token, for formats made by
            hand; otherwise it is plain text, whoever wrote it.
        continue_final_message: the answer continues the last message, which is the assistant's.
        reasoning_effort: how much a model that can think is to think before it answers: `none`,
            `minimal`, `low`, `medium`, `high`, `xhigh` or `max`; not every model tells all apart.
        chat_template_kwargs: variables for the model's chat template, such as
            `{"enable_thinking": False}`: texts, numbers, true and false.
        stop: strings that end the text; they are not part of it.
        temperature: 0 takes the likeliest token each time; 0.8 unless given.
        top_p: 0 to 1: only tokens that make up this much of the probability.
        top_k: only so many of the likeliest tokens; 0 for all.
        min_p: only tokens with at least this share of the likeliest one's probability.
        repeat_penalty: above 1, tokens that stand in the text already become less likely.
        frequency_penalty: -2 to 2, for each time that a token was used.
        presence_penalty: -2 to 2, once for a token that was used.
        seed: makes the sampling start from the same numbers.
        logit_bias: what is added to the logits of tokens, by their number.
        ignore_eos: go on where the model would end, until the tokens are there or a stop string
            comes; not beside one of the four that follow.
        grammar: a GBNF grammar that the text follows.
        json_schema: a JSON schema, as text, that the answer follows.
        regex: a regular expression that the whole answer matches.
        choice: texts of which the answer is one. At most one of these four is given.
        reference: your own words, given back with the answer.
        idempotency_key: the same call with the same key is the same order, charged once; if that
            was cancelled and cost nothing, it is a new one.
        start_by: a time with its zone; not begun by then, it expires and all comes back.
        run_limit_s: seconds after which a worker stops it; charged is what was delivered.
        quote: the `quote` of a `Quote` for the same account, model, words and tokens, which holds
            for a minute: its rates hold, and without a fee or a multiplier of its own the order
            pays the quoted fee.
        callback: called once with the text when the answer arrives, in a thread of the library
            that keeps the program alive until then, though the herd is closed; callbacks are called
            one after the other, as the ends are noticed, beside the herder and over HTTP alike.
            What one raises is logged.
        on_error: called once with the error if the order ends otherwise; logged if not given.

    Returns:
        The order.

    Raises:
        InvalidRequest: something of the call is wrong; the sentence says what.
        InsufficientBalance: the account has less available than the fee.
        AccountNotFound, ModelNotFound: there is no such thing.
        IdempotencyKeyReused: the idempotency key stands for another call.
        InvalidQuote, QuoteMismatch, QuoteExpired: the quote is invalid, for another order, or over.
        RateLimited: the account has as much open, or ordered lately, as it may;
            `error.retry_after_s` says when to try again.
        SetupError: there is no herd here.
        HerdUnavailable: its database is busy or away; nothing was held. Or it was lost while it
            took the order and stayed away: then the sentence, and `order` of the error's `data`,
            say which order that is, and without an idempotency key it is cancelled when the
            database is back.
    """
    herd = connect()
    receipt = herd.submit(
        prompt,
        tokens,
        fee=fee,
        multiplier=multiplier,
        max_fee=max_fee,
        account=account,
        model=model,
        messages=messages,
        raw=raw,
        special=special,
        continue_final_message=continue_final_message,
        reasoning_effort=reasoning_effort,
        chat_template_kwargs=chat_template_kwargs,
        stop=stop,
        reference=reference,
        idempotency_key=idempotency_key,
        start_by=start_by,
        run_limit_s=run_limit_s,
        quote=quote,
        sampling={
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "repeat_penalty": repeat_penalty,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "seed": seed,
            "logit_bias": logit_bias,
            "ignore_eos": ignore_eos,
            "grammar": grammar,
            "json_schema": json_schema,
            "regex": regex,
            "choice": choice,
        },
    )
    order = Order(herd, receipt)
    if callback is not None or on_error is not None:
        herd.call_back(order.id, callback, on_error)
    return order


def quote(
    prompt: str | None = None,
    tokens: int | None = None,
    *,
    fee: int | Literal["base"] | None = None,
    multiplier: float | str | None = None,
    max_fee: int | None = None,
    account: str | None = None,
    model: str | None = None,
    messages: Messages | None = None,
    bids: Sequence[BidAsked] | None = None,
) -> Quote:
    """Return the price and the expected wait of an order placed now; nothing is held.

    `quote` of the answer, given to `submit` within a minute, binds the herd to rates and fee.
    `curve` says what other bids would buy: those in `bids`, up to 20 of `{"fee": 100}`, in winston,
    or `{"multiplier": 1.5}`, of what the order needs; or the usual ones. The other arguments, and
    the errors, are those of `submit`; and `InvalidBids`.
    """
    return connect().quote(
        prompt,
        tokens,
        fee=fee,
        multiplier=multiplier,
        max_fee=max_fee,
        account=account,
        model=model,
        messages=messages,
        bids=bids,
    )


def count_tokens(
    prompt: str | None = None,
    *,
    model: str | None = None,
    messages: Messages | None = None,
    raw: bool = False,
    special: bool = False,
    continue_final_message: bool = False,
    reasoning_effort: Effort | None = None,
    chat_template_kwargs: Mapping[str, TemplateArg] | None = None,
) -> TokenCount:
    """Count the tokens of a prompt, as a worker with the model is given it; costs nothing.

    The arguments are those of `submit`, which itself counts a prompt that may be too long and
    refuses it (`PromptTooLong`) before anything is held.

    Raises:
        InvalidPrompt: it cannot be a prompt, or the model's chat template refuses it.
        ModelNotFound: no model has that name.
        HerdUnavailable: no worker with the model answers.
    """
    return connect().count_tokens(
        prompt,
        model=model,
        messages=messages,
        raw=raw,
        special=special,
        continue_final_message=continue_final_message,
        reasoning_effort=reasoning_effort,
        chat_template_kwargs=chat_template_kwargs,
    )


def info() -> Info:
    """Return the herd's name, rates, queues and workers."""
    return connect().info()
