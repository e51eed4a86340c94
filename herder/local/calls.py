"""Calls of programs on the herder's machine, and of gateways, parsed for order intake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from herder.domain.order import OrderRequest
from herder.domain.parsing import parse_submission
from herder.domain.signed_tokens import read_quote
from herder.interface import OrderArguments, OrderCall, QuoteCall
from herder.settings import Settings
from workers.wire import PublicKey


def parse_call(
    prompt: str | None,
    tokens: int | None,
    call: OrderCall | QuoteCall,
    settings: Settings,
    keys: Callable[[], Mapping[str, PublicKey]],
    *,
    api_key: str | None = None,
) -> OrderRequest:
    """Parse what an order, or a quote of one, is asked with.

    Args:
        prompt: the text, or None where the call has messages.
        tokens: the most tokens to generate.
        call: the rest; its bids are parsed by `herder.domain.parsing.parse_bids`.
        settings: of the herder: who pays where nobody is named, and the longest prompt.
        keys: reads the herders' public keys; asked only where the call names a quote.
        api_key: the id of the API key that it is bought with.

    Raises:
        InvalidRequest: something of the call is wrong; the sentence says what.
    """
    apart = ("account", "bids", "quote")
    # What is left out here is given below; a name that is wrong is a TypeError in any case.
    others = {name: value for name, value in call.items() if name not in apart}
    account, quote = call.get("account"), call.get("quote")
    return parse_submission(
        prompt,
        tokens,
        account=settings.account if account is None else account,
        max_prompt_bytes=settings.max_prompt_bytes,
        api_key=api_key,
        quote=None if quote is None else read_quote(quote, keys()),
        **cast(OrderArguments, others),
    )
