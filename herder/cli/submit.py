"""`herd submit`: an order, its text as it comes, and its receipt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from herder.cli.base import (
    INTERRUPTED,
    Json,
    buying,
    fee_of,
    is_at_home,
    optional_number,
    optional_whole,
    whole,
)
from herder.cli.obstacles import saying_what_is_wrong
from herder.cli.order_options import (
    Account,
    ContinueFinalMessage,
    Fee,
    MaxFee,
    MessagesFile,
    Model,
    Multiplier,
    Prompt,
    ReasoningEffort,
    Special,
    TemplateKwargs,
    Tokens,
    file_of,
    messages_of,
    prompt_of,
    template_kwargs_of,
)
from herder.cli.show import (
    complain,
    print_json,
    receipt_line,
    write_text,
)
from herder.db.outages import ride_out
from herder.errors import HerdUnavailable, OrderEnded, OrderSetAside, ResultTimeout, StreamRestarted
from herder.types import Result, Usage

if TYPE_CHECKING:
    from herder.interface import BuyerHerd, OrderCall
    from herder.types import Receipt
    from workers.wire import Effort

CANCEL_WAIT_S = 15
"""The wait for a cancelled order's end."""


def _option(name: str, metavar: str, help_text: str) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=help_text)


def register(app: typer.Typer) -> None:
    """Add the command to the `herd` command."""
    app.command(
        epilog='Examples:\n\nherd submit "What is the meaning of life?" -n 20 --fee 100\n\n'
        "herd submit - -n 200 --json < prompt.txt"
    )(submit)


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
        bool, typer.Option("--raw", help="Send the prompt without the model's chat template.")
    ] = False,
    special: Special = False,
    continue_final_message: ContinueFinalMessage = False,
    reasoning_effort: ReasoningEffort = None,
    chat_template_kwargs: TemplateKwargs = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop", metavar="TEXT", help="A string that ends the answer; may be repeated."
        ),
    ] = None,
    temperature: Annotated[
        str | None, _option("temperature", "X", "0 always chooses the most likely token.")
    ] = None,
    top_p: Annotated[
        str | None,
        _option(
            "top-p", "X", "Choose only from the most likely tokens that make up this probability."
        ),
    ] = None,
    top_k: Annotated[
        str | None, _option("top-k", "N", "Choose only from the N most likely tokens.")
    ] = None,
    min_p: Annotated[
        str | None,
        _option(
            "min-p",
            "X",
            "Choose only tokens with at least this fraction of the top token's probability.",
        ),
    ] = None,
    repeat_penalty: Annotated[
        str | None,
        _option("repeat-penalty", "X", "Above 1, tokens that were used become less likely."),
    ] = None,
    frequency_penalty: Annotated[
        str | None,
        _option("frequency-penalty", "X", "Lower a token's chance for each time that it was used."),
    ] = None,
    presence_penalty: Annotated[
        str | None, _option("presence-penalty", "X", "Lower a token's chance once if it was used.")
    ] = None,
    seed: Annotated[
        str | None, _option("seed", "N", "The random seed; the same seed repeats the same choices.")
    ] = (None),
    ignore_eos: Annotated[
        bool,
        typer.Option(
            "--ignore-eos",
            help="Go on where the model would end, until the tokens are there or a stop string "
            "comes.",
        ),
    ] = False,
    grammar: Annotated[
        Path | None,
        _option("grammar", "FILE", "A file with a GBNF grammar that the answer must follow."),
    ] = None,
    json_schema: Annotated[
        Path | None,
        _option("json-schema", "FILE", "A file with a JSON schema that the answer must follow."),
    ] = None,
    regex: Annotated[
        str | None,
        _option("regex", "PATTERN", "A regular expression that the whole answer must match."),
    ] = None,
    choice: Annotated[
        list[str] | None,
        _option("choice", "TEXT", "A text that the answer may be; repeat it for more of them."),
    ] = None,
    reference: Annotated[
        str | None,
        _option("reference", "TEXT", "A reference of your own, returned with the answer."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        _option(
            "idempotency-key", "KEY", "Repeated with the same key, the call is the same order."
        ),
    ] = None,
    start_by: Annotated[
        str | None,
        _option(
            "start-by",
            "TIME",
            "Let the order expire if it has not started by then, such as "
            "2030-01-31T18:00:00+00:00.",
        ),
    ] = None,
    run_limit: Annotated[
        str | None,
        _option("run-limit", "SECONDS", "Stop the order after running this many seconds."),
    ] = None,
    quote: Annotated[
        str | None, _option("quote", "QUOTE", "A signed quote, whose rates and fee the order gets.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Submit, show the receipt and exit without waiting.")
    ] = False,
    json: Json = False,
) -> None:
    """Submit a paid prompt; print the answer to standard output, the receipt to standard error.

    Unused tokens are not charged. With --json, the answer and its receipt are one JSON document.
    Ctrl-C asks whether to cancel the order; without a terminal to ask on, the order continues.
    """
    with buying() as herd:
        call: OrderCall = {
            "fee": fee_of(fee),
            "multiplier": multiplier,
            "max_fee": optional_whole(max_fee),
            "account": account,
            "model": model,
            "messages": messages_of(messages),
            "raw": raw,
            "special": special,
            "continue_final_message": continue_final_message,
            "reasoning_effort": cast("Effort | None", reasoning_effort),
            "chat_template_kwargs": template_kwargs_of(chat_template_kwargs),
            "stop": stop or None,
            "reference": reference,
            "idempotency_key": idempotency_key,
            "start_by": start_by,
            "run_limit_s": optional_whole(run_limit),
            "quote": quote,
            "sampling": {
                "temperature": optional_number(temperature),
                "top_p": optional_number(top_p),
                "top_k": optional_whole(top_k),
                "min_p": optional_number(min_p),
                "repeat_penalty": optional_number(repeat_penalty),
                "frequency_penalty": optional_number(frequency_penalty),
                "presence_penalty": optional_number(presence_penalty),
                "seed": optional_whole(seed),
                "ignore_eos": True if ignore_eos else None,
                "grammar": file_of(grammar, "grammar"),
                "json_schema": file_of(json_schema, "JSON schema"),
                "regex": regex,
                "choice": choice or None,
            },
        }
        words = prompt_of(prompt)
        try:
            receipt = herd.submit(words, whole(tokens), **call)
        except KeyboardInterrupt:
            complain("Interrupted; `herd orders` shows whether the order was accepted.")
            raise typer.Exit(INTERRUPTED) from None
        _after(herd, receipt, no_wait=no_wait, json=json)


def _after(herd: BuyerHerd, receipt: Receipt, *, no_wait: bool, json: bool) -> None:
    """Show an order that was accepted: its id before anything that may fail."""
    order_id = receipt.order
    if no_wait and not json:
        sys.stdout.write(f"{order_id}\n")
        complain(receipt_line(receipt))
        return
    if no_wait:
        print_json(_shown_at_once(herd, receipt).to_dict())
        return
    if receipt.held:
        complain(f"Order {order_id} is {receipt.state}.")
    try:
        say_who_is_away(herd, receipt)
        with saying_what_is_wrong(herd, receipt) as begun_to_run:
            if json:
                _wait_for_json(herd, order_id)
            else:
                _follow(herd, order_id, begun_to_run)
        if not json:
            last = ride_out(lambda: herd.receipt(order_id), on_outage=say_it_waits)
            complain(receipt_line(last))
    except KeyboardInterrupt:
        _interrupted(herd, order_id)
        raise typer.Exit(INTERRUPTED) from None
    except HerdUnavailable:
        if json:
            print_json(begun(receipt).to_dict())
        stands = "continues" if receipt.held else f"is {receipt.state}"
        complain(f"Order {order_id} {stands}; `herd order show {order_id}` shows it.")
        raise


def _shown_at_once(herd: BuyerHerd, receipt: Receipt) -> Result:
    """Return the state of an order that is not waited for.

    An earlier call may have brought its answer.
    """
    if receipt.held:
        return begun(receipt)
    return ride_out(lambda: herd.answer(receipt.order), on_outage=say_it_waits)


def begun(receipt: Receipt) -> Result:
    """Return the empty answer of an order that was just accepted.

    Nothing but the receipt.
    """
    return Result(receipt.order, "", None, Usage(0, 0), receipt, receipt.reference)


def say_it_waits() -> None:
    """Tell whoever waits that it is for the database."""
    complain("The herd does not answer; waiting for it.")


def _can_ask() -> bool:
    """Return whether somebody sits there who can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _interrupted(herd: BuyerHerd, order_id: str) -> None:
    """Ask whether the order is to be cancelled; a second Ctrl-C leaves it as it is."""
    try:
        if not _can_ask() or not typer.confirm(f"\nCancel order {order_id}?", err=True):
            complain(f"Order {order_id} continues; `herd order show {order_id}` shows it.")
            return
    except (KeyboardInterrupt, typer.Abort):
        complain(f"\nOrder {order_id} continues; `herd order show {order_id}` shows it.")
        return
    try:
        cancel_surely(herd, order_id)
    except KeyboardInterrupt:
        complain(f"\nOrder {order_id} may continue; `herd order cancel {order_id}` cancels it.")
        return
    try:
        with suppress(OrderEnded, OrderSetAside):
            herd.result(order_id, CANCEL_WAIT_S)
        complain(receipt_line(herd.receipt(order_id)))
    except (KeyboardInterrupt, ResultTimeout, HerdUnavailable):
        complain(
            f"Order {order_id} is being stopped; `herd order show {order_id}` shows how it ends."
        )


def cancel_surely(herd: BuyerHerd, order_id: str) -> None:
    """Cancel an order; while the herd does not answer, until it does, or Ctrl-C ends that."""
    ride_out(
        lambda: herd.cancel(order_id),
        on_outage=lambda: complain(
            f"The herd does not answer. Order {order_id} will be cancelled as soon as it does; "
            f"Ctrl-C leaves it running, and `herd order cancel {order_id}` cancels it later."
        ),
    )


def say_who_is_away(herd: BuyerHerd, receipt: Receipt) -> None:
    """Tell whoever waits for an order that there is nobody to run it."""
    try:
        away = receipt.state == "queued" and not herd.attended(receipt.model)
    except HerdUnavailable:
        return
    if away:
        complain(
            f"Order {receipt.order} is waiting for workers: none with {receipt.model} is running"
            f"{'; `herd up` starts some' if is_at_home() else ''}."
        )


def _wait_for_json(herd: BuyerHerd, order_id: str) -> None:
    try:
        result = herd.result(order_id, None)
    except (OrderEnded, OrderSetAside) as error:
        print_json(error.result.to_dict())
        raise
    print_json(result.to_dict())


def _follow(
    herd: BuyerHerd, order_id: str, begun_to_run: Callable[[], object] = lambda: None
) -> None:
    """Show an order's text as it comes; a text that began again is shown again."""
    last = "\n"
    while True:
        try:
            for text in herd.stream(order_id):
                begun_to_run()
                write_text(text)
                last = text
        except StreamRestarted:
            complain("\nThe worker was lost; the text starts again:")
            continue
        finally:
            if not last.endswith("\n"):
                write_text("\n")
                last = "\n"
        return
