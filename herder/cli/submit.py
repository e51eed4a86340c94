"""`herd quote` and `herd submit`: what an order would cost, and the order itself."""

from __future__ import annotations

import json as json_lib
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from herder.cli.base import INTERRUPTED, Json, buying, optional_whole, read_text, whole
from herder.cli.show import (
    complain,
    print_facts,
    print_json,
    print_table,
    receipt_line,
    say,
    write_text,
)
from herder.errors import InvalidPrompt, OrderEnded, ResultTimeout, StreamRestarted
from herder.receipts import PLACE_COUNTED, PLACE_UNKNOWN

if TYPE_CHECKING:
    from herder.interface import Herd
    from herder.receipts import Bid, Quote, Receipt

MOST_FILE_BYTES = 4 * 2**20
"""The longest prompt, messages or grammar that is read; the herd's own bounds are lower."""
CANCEL_WAIT_S = 15
"""How long a cancelled order's end is waited for."""

Prompt = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT", help="The prompt; - reads it from standard input.", show_default=False
    ),
]
Tokens = Annotated[
    str, typer.Option("--tokens", "-n", metavar="TOKENS", help="The most tokens to generate.")
]
Fee = Annotated[
    str | None,
    typer.Option("--fee", metavar="N", help="Winston offered; automatic unless given."),
]
Multiplier = Annotated[
    str | None, typer.Option("--multiplier", metavar="X", help="A factor on the fee, such as 1.5.")
]
MaxFee = Annotated[
    str | None,
    typer.Option("--max-fee", metavar="N", help="Refuse if the fee would be more winston."),
]
Account = Annotated[
    str | None, typer.Option("--account", help="Who pays; HERD_ACCOUNT unless given.")
]
Model = Annotated[str | None, typer.Option("--model", help="The herd's default unless given.")]
MessagesFile = Annotated[
    Path | None,
    typer.Option(
        "--messages",
        metavar="FILE",
        help='A conversation in place of a prompt: JSON, [{"role": "user", "content": "Hi"}].',
    ),
]


def _option(name: str, metavar: str, help_text: str) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=help_text)


def register(app: typer.Typer) -> None:
    """Add the commands to the `herd` command."""
    app.command(
        epilog='Examples:\n\nherd quote "What is the meaning of life?" -n 20\n\n'
        "herd quote - -n 200 --bid 300 --bid 1.5x < prompt.txt"
    )(quote)
    app.command(
        epilog='Examples:\n\nherd submit "What is the meaning of life?" -n 20 --fee 100\n\n'
        "herd submit - -n 200 --json < prompt.txt"
    )(submit)


def quote(
    prompt: Prompt = None,
    *,
    tokens: Tokens,
    fee: Fee = None,
    multiplier: Multiplier = None,
    max_fee: MaxFee = None,
    account: Account = None,
    model: Model = None,
    messages: MessagesFile = None,
    bid: Annotated[
        list[str] | None,
        typer.Option(
            "--bid",
            metavar="BID",
            help="A bid to compare: winston, or a multiplier such as 1.5x; may be given again.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Say what an order would need, pay and wait for, as it would stand now; nothing is held.

    And what other bids would buy. The "quote" that --json shows, given to `herd submit --quote`
    within a minute, binds the herd to its rates and its fee.
    """
    with buying() as herd:
        found = herd.quote(
            _prompt(prompt),
            whole(tokens),
            fee=optional_whole(fee),
            multiplier=multiplier,
            max_fee=optional_whole(max_fee),
            account=account,
            model=model,
            messages=_messages(messages),
            bids=[_bid(one) for one in bid] if bid else None,
        )
    if json:
        print_json(found.to_dict())
    else:
        _print_quote(found)


def submit(
    prompt: Prompt = None,
    *,
    tokens: Tokens,
    fee: Fee = None,
    multiplier: Multiplier = None,
    max_fee: MaxFee = None,
    account: Account = None,
    model: Model = None,
    messages: MessagesFile = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The prompt skips the model's chat template.")
    ] = False,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="Ends the answer; may be given again."),
    ] = None,
    temperature: Annotated[
        str | None, _option("temperature", "X", "0 takes the likeliest token each time.")
    ] = None,
    top_p: Annotated[
        str | None, _option("top-p", "X", "Only tokens that make up so much probability.")
    ] = None,
    top_k: Annotated[str | None, _option("top-k", "N", "Only the N likeliest tokens.")] = None,
    min_p: Annotated[
        str | None, _option("min-p", "X", "Only tokens with this share of the likeliest's.")
    ] = None,
    repeat_penalty: Annotated[
        str | None, _option("repeat-penalty", "X", "Above 1: what was said becomes less likely.")
    ] = None,
    frequency_penalty: Annotated[
        str | None, _option("frequency-penalty", "X", "For each time that a token was used.")
    ] = None,
    presence_penalty: Annotated[
        str | None, _option("presence-penalty", "X", "Once for each token that was used.")
    ] = None,
    seed: Annotated[str | None, _option("seed", "N", "Start sampling from the same numbers.")] = (
        None
    ),
    grammar: Annotated[
        Path | None, _option("grammar", "FILE", "A GBNF grammar that the answer follows.")
    ] = None,
    json_schema: Annotated[
        Path | None, _option("json-schema", "FILE", "A JSON schema that the answer follows.")
    ] = None,
    reference: Annotated[
        str | None, _option("reference", "TEXT", "Your own words, given back with the answer.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        _option("idempotency-key", "KEY", "The same call with the same key is the same order."),
    ] = None,
    start_by: Annotated[
        str | None,
        _option("start-by", "TIME", "Not begun by then, it expires: 2030-01-31T18:00:00+00:00."),
    ] = None,
    run_limit: Annotated[
        str | None, _option("run-limit", "SECONDS", "Stop it after so long a run.")
    ] = None,
    quote: Annotated[
        str | None, _option("quote", "QUOTE", "Order what was quoted: its rates and fee hold.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Submit, show the receipt, and leave.")
    ] = False,
    json: Json = False,
) -> None:
    """Submit a paid prompt; the answer streams to standard output, the receipt to standard error.

    Unused tokens are not paid. With --json the answer and its receipt are one JSON document.
    Ctrl-C asks whether to cancel the order; without a terminal to ask, it goes on.
    """
    with buying() as herd:
        call = {
            "fee": optional_whole(fee),
            "multiplier": multiplier,
            "max_fee": optional_whole(max_fee),
            "account": account,
            "model": model,
            "messages": _messages(messages),
            "raw": raw,
            "stop": stop or None,
            "reference": reference,
            "idempotency_key": idempotency_key,
            "start_by": start_by,
            "run_limit_s": optional_whole(run_limit),
            "quote": quote,
            "sampling": {
                "temperature": temperature,
                "top_p": top_p,
                "top_k": top_k,
                "min_p": min_p,
                "repeat_penalty": repeat_penalty,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "seed": seed,
                "grammar": _file(grammar, "grammar"),
                "json_schema": _file(json_schema, "JSON schema"),
            },
        }
        words = _prompt(prompt)
        try:
            receipt = herd.submit(words, whole(tokens), **call)
        except KeyboardInterrupt:
            complain("Interrupted; `herd orders` tells whether the order was taken.")
            raise typer.Exit(INTERRUPTED) from None
        _after(herd, receipt, no_wait=no_wait, json=json)


def _after(herd: Herd, receipt: Receipt, *, no_wait: bool, json: bool) -> None:
    """What there is to show of an order that was taken."""
    if no_wait:
        if json:
            print_json(herd.answer(receipt.order).to_dict())
        else:
            sys.stdout.write(f"{receipt.order}\n")
            complain(receipt_line(receipt))
        return
    try:
        say_who_is_away(herd, receipt)
        if json:
            _wait_for_json(herd, receipt.order)
        else:
            _follow(herd, receipt.order)
            complain(receipt_line(herd.receipt(receipt.order)))
    except KeyboardInterrupt:
        _interrupted(herd, receipt.order)
        raise typer.Exit(INTERRUPTED) from None


def _can_ask() -> bool:
    """Whether somebody sits there who can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _interrupted(herd: Herd, order_id: str) -> None:
    """Ask whether the order is to be cancelled; a second Ctrl-C leaves it as it is."""
    try:
        if _can_ask() and typer.confirm(f"\nCancel order {order_id}?", err=True):
            herd.cancel(order_id)
            with suppress(OrderEnded):
                herd.result(order_id, CANCEL_WAIT_S)
            complain(receipt_line(herd.receipt(order_id)))
            return
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\n")
    except ResultTimeout:
        complain(f"Order {order_id} is told to stop; `herd order show {order_id}` shows its end.")
        return
    complain(f"Order {order_id} goes on; `herd order show {order_id}` shows it.")


def say_who_is_away(herd: Herd, receipt: Receipt) -> None:
    """Tell whoever waits for an order that there is nobody to run it."""
    if receipt.state == "queued" and not herd.attended(receipt.model):
        complain(
            f"Order {receipt.order} waits for workers: none with {receipt.model} is here; "
            f"`herd up` on the herder's machine starts some."
        )


def _wait_for_json(herd: Herd, order_id: str) -> None:
    try:
        result = herd.result(order_id, None)
    except OrderEnded as error:
        print_json(error.result.to_dict())
        raise
    print_json(result.to_dict())


def _follow(herd: Herd, order_id: str) -> None:
    """Show an order's text as it comes; a text that began again is shown again."""
    last = "\n"
    while True:
        try:
            for text in herd.stream(order_id):
                write_text(text)
                last = text
        except StreamRestarted:
            complain("\nThe worker was lost; the text begins again:")
            continue
        finally:
            if not last.endswith("\n"):
                write_text("\n")
                last = "\n"
        return


# What is read from files


def _prompt(prompt: str | None) -> str | None:
    if prompt != "-":
        return prompt
    content = sys.stdin.buffer.read(MOST_FILE_BYTES + 1)
    if len(content) > MOST_FILE_BYTES:
        raise InvalidPrompt(
            f"The prompt has more than {MOST_FILE_BYTES} bytes; no herd takes that many.",
            most=MOST_FILE_BYTES,
        )
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidPrompt("The prompt on standard input is no UTF-8 text.") from None


def _messages(path: Path | None) -> object:
    if path is None:
        return None
    try:
        messages = json_lib.loads(read_text(path, "file of messages", MOST_FILE_BYTES))
    except (ValueError, RecursionError):
        raise InvalidPrompt(f"The file of messages {str(path)!r} is no JSON.") from None
    if messages is None:
        raise InvalidPrompt(f"The file of messages {str(path)!r} holds null, not a list.")
    return messages


def _file(path: Path | None, what: str) -> str | None:
    return None if path is None else read_text(path, what, MOST_FILE_BYTES)


def _bid(text: str) -> dict[str, int | str]:
    """A bid as typed: winston, or a multiplier that ends with an x."""
    return {"multiplier": text[:-1]} if text.endswith("x") else {"fee": whole(text)}


def _print_quote(found: Quote) -> None:
    if found.waiting_for_workers:
        wait: object = "for workers: none is here"
    else:
        wait = _wait(found.wait_s)
    print_facts(
        [
            ("account", found.account),
            ("model", found.model),
            ("words", found.words),
            ("tokens", found.tokens),
            ("rates", f"{found.rates.prompt_fee} a prompt, {found.rates.fee_per_token} a token"),
            ("needed", found.needed),
            ("fee", found.fee),
            ("multiplier", found.multiplier),
            ("place", _place(found)),
            ("wait", wait),
            ("binding", f"until {found.expires}, by the quote that --json shows"),
        ]
    )
    if found.curve:
        say("")
        rows = ((bid.fee, bid.multiplier, _place(bid), _wait(bid.wait_s)) for bid in found.curve)
        print_table((">Fee", ">Multiplier", ">Place", ">Wait"), rows)


def _place(found: Quote | Bid) -> str:
    if found.place_exact:
        return str(found.place)
    return f"beyond {PLACE_COUNTED}" if found.place == PLACE_UNKNOWN else f"about {found.place}"


def _wait(wait_s: int | None) -> str | None:
    return None if wait_s is None else f"{wait_s} s"
