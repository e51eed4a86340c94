"""Calls of programs on the herder's machine, and of gateways, parsed for order intake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from herder.domain.order import OrderRequest
from herder.domain.parsing import parse_submission
from herder.domain.signed_tokens import read_quote
from herder.errors import InvalidSampling, InvalidSchema
from herder.interface import OrderArguments, OrderCall, QuoteCall
from herder.settings import Settings
from workers.wire import PublicKey, Sampling


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
        InvalidRequest: something of the call is wrong; the sentence says what. InvalidSchema among
            them, which names keyword and path.
    """
    apart = ("account", "bids", "quote")
    # What is left out here is given below; a name that is wrong is a TypeError in any case.
    others = {name: value for name, value in call.items() if name not in apart}
    account, quote = call.get("account"), call.get("quote")
    request = parse_submission(
        prompt,
        tokens,
        account=settings.account if account is None else account,
        max_prompt_bytes=settings.max_prompt_bytes,
        api_key=api_key,
        quote=None if quote is None else read_quote(quote, keys()),
        **cast(OrderArguments, others),
    )
    _check_form(request.sampling, settings.max_schema_bytes)
    return request


def _check_form(sampling: Sampling, most_bytes: int) -> None:
    """Refuse a form of the answer that no worker could hold it to, before money is held."""
    forms = sampling.forms
    if sampling.ignore_eos and forms:
        raise InvalidSampling(
            "ignore_eos goes on where an answer ends, but the form that is asked of it says where "
            "that is; give only one.",
            name="ignore_eos",
        )
    if len(forms) > 1:
        raise _refused(
            f"{forms[0]} and {forms[1]} both say what the answer must be; give only one.", forms[1]
        )
    if sampling.json_schema is not None:
        _check_schema(sampling.json_schema, most_bytes)
    if sampling.regex is not None:
        from workers.wire.regex_answers import RegexRefused, compile_regex  # loads llguidance

        try:
            compile_regex(sampling.regex)
        except RegexRefused as error:
            raise _refused(str(error), "regex") from None


def _refused(why: str, param: str) -> InvalidSchema:
    error = InvalidSchema(why)
    error.param = param
    return error


def _check_schema(schema: str, most: int) -> None:
    size = len(schema.encode(errors="surrogatepass"))
    if size > most:
        raise InvalidSchema(
            f"The JSON schema has {size} bytes; at most {most} are allowed.", bytes=size, most=most
        )
    from workers.wire.schema_errors import SchemaRefused
    from workers.wire.schemas import compile_schema  # loads llguidance

    try:
        compile_schema(schema)
    except SchemaRefused as error:
        raise InvalidSchema(error.message, keyword=error.keyword, path=error.path) from None
