"""`herd chat`: a conversation in the terminal, and what each turn of it costs."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from herder.cli.base import INTERRUPTED, Json, buying, exit_code, fee_of, optional_whole, whole
from herder.cli.chat_screen import HELP, Keyboard, Machine, People, Pipe, Spent
from herder.cli.conversation import Conversation, too_long
from herder.cli.interrupts import one_interrupt_held
from herder.cli.order_options import Account, Fee, MaxFee, Model, Multiplier
from herder.cli.show import complain
from herder.cli.submit import CANCEL_WAIT_S, cancel_surely, say_it_waits
from herder.db.outages import ride_out
from herder.domain.pricing import parse_offer
from herder.errors import (
    HerdError,
    HerdUnavailable,
    InvalidRequest,
    OrderEnded,
    OrderSetAside,
    ResultTimeout,
    StreamRestarted,
)

if TYPE_CHECKING:
    from herder.interface import BuyerHerd, OrderCall
    from herder.types import Result

TOKENS = "256"


def register(app: typer.Typer) -> None:
    """Add the command to the `herd` command."""
    app.command(
        epilog='Examples:\n\nherd chat --system "You are brief." --max-fee 500\n\n'
        "printf 'Hello\\nAnd again\\n' | herd chat --json"
    )(chat)


def chat(
    system: Annotated[
        str | None,
        typer.Option(
            "--system",
            metavar="TEXT",
            help="Instructions for the model, placed before the conversation.",
        ),
    ] = None,
    tokens: Annotated[
        str,
        typer.Option(
            "--tokens", "-n", metavar="TOKENS", help="The maximum number of tokens in an answer."
        ),
    ] = TOKENS,
    fee: Fee = None,
    multiplier: Multiplier = None,
    max_fee: MaxFee = None,
    account: Account = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Chat with a model; each message is a paid order that includes the conversation so far.

    Ctrl-C during an answer cancels its order; what was generated until then is kept and charged.
    /help shows more commands. Without a terminal, each line of standard input is a message, and
    the first that fails ends the chat. With --json, each message prints a JSON object on a line.
    """
    with buying() as herd:
        talk = Chat(
            herd,
            Conversation(system),
            Machine() if json else People(),
            whole(tokens),
            {
                "fee": fee_of(fee),
                "multiplier": multiplier,
                "max_fee": optional_whole(max_fee),
                "account": account,
                "model": model,
            },
        )
        interactive = sys.stdin.isatty()
        if interactive and not json:
            talk.greet()
        code = talk.run(Keyboard(quiet=json) if interactive else Pipe(), interactive=interactive)
    raise typer.Exit(code)


class Chat:
    """A conversation that goes on, and what it has cost.

    Args:
        herd: where each turn is bought.
        conversation: what was said.
        screen: where it is shown.
        tokens: the most tokens of each answer.
        call: what else each turn is asked with.
    """

    def __init__(
        self,
        herd: BuyerHerd,
        conversation: Conversation,
        screen: People | Machine,
        tokens: int,
        call: OrderCall,
    ) -> None:
        self._herd = herd
        self._conversation = conversation
        self._screen = screen
        self._tokens = tokens
        self._call = call
        self._turn = 0
        self._total = 0

    def greet(self) -> None:
        """Say who is talked to, and what there is to pay with."""
        has = self._herd.balance(self._call["account"])
        model = self._call["model"] or self._herd.info().default_model
        self._screen.note(
            f"{model}; account {has.account} has {has.available} winston available. /help shows "
            "the commands, Ctrl-D ends the chat."
        )

    def run(self, source: Keyboard | Pipe, *, interactive: bool) -> int:
        """Take lines until they end.

        Returns:
            The exit code.
        """
        while True:
            try:
                line = source.read()
                if line is None or line.strip() == "/quit":
                    return 0
                if line.strip() and not self._command(line):
                    self._turn += 1
                    if self._take(line) and not interactive:
                        return INTERRUPTED
            except KeyboardInterrupt:
                if not interactive:
                    return INTERRUPTED
                self._screen.note("\n/quit or Ctrl-D ends the chat.")
            except HerdError as error:
                self._screen.failed(self._turn, error)
                if not interactive:
                    return exit_code(error)

    def _command(self, line: str) -> bool:
        """Do what a line with a / before it says; False where it is something to say."""
        if not line.startswith("/"):
            return False
        name, *rest = line.split()
        if name == "/help" and not rest:
            self._screen.note(HELP)
        elif name == "/clear" and not rest:
            self._conversation.clear()
            self._screen.note("The conversation so far is forgotten.")
        elif name == "/fee" and len(rest) == 1:
            self._offer(rest[0])
        else:
            raise InvalidRequest(
                f"There is no command {line.strip()[:40]!r}; /help shows them, and a space before "
                "the / sends the line to the model."
            )
        return True

    def _offer(self, text: str) -> None:
        if text == "auto":
            self._call |= {"fee": None, "multiplier": None}
            self._screen.note("Each message now pays the automatic fee.")
            return
        fee = parse_offer(whole(text))
        self._call |= {"fee": fee, "multiplier": None}
        offers = "exactly what it needs" if fee == "base" else f"{fee} winston"
        self._screen.note(f"Each message now offers {offers}.")

    def _take(self, text: str) -> bool:
        """Buy the answer to what was said.

        Returns:
            Whether Ctrl-C ended it.

        Raises:
            HerdError: there is no answer; nothing of it is kept.
        """
        forgotten = 0
        while True:
            try:
                result, interrupted = self._ask(text)
            except HerdError as error:
                bound = too_long(error)
                cut = 0 if bound is None else self._conversation.cut(text, *bound)
                if cut == 0:
                    raise
                forgotten += cut
                self._screen.note(
                    f"The conversation is longer than the herd accepts: the oldest {_turns(cut)} "
                    "forgotten."
                )
                continue
            break
        if result is None:
            return True
        self._total += result.receipt.charged
        if result.text:
            self._conversation.keep(text, result.text)
        available = ride_out(lambda: self._herd.balance(self._call["account"])).available
        self._screen.ended(
            Spent(self._turn, result, self._total, available, forgotten, interrupted)
        )
        return interrupted

    def _ask(self, text: str) -> tuple[Result | None, bool]:
        """Return one order's answer, and whether Ctrl-C ended it; None where that is not known yet.

        Raises:
            OrderEnded: it failed, or expired without a word.
        """
        call: OrderCall = {**self._call, "messages": self._conversation.asking(text)}
        with one_interrupt_held() as interrupted:
            try:
                receipt = self._herd.submit(None, self._tokens, **call)
            except KeyboardInterrupt:  # the second one
                complain("Interrupted; `herd orders` shows whether the order was accepted.")
                return None, True
        shown = _Shown(self._screen)
        if interrupted():
            return self._stop(receipt.order, shown), True
        try:
            self._screen.begun(self._herd, receipt)
            self._follow(receipt.order, shown)
            result = ride_out(lambda: self._herd.answer(receipt.order), on_outage=say_it_waits)
        except KeyboardInterrupt:
            return self._stop(receipt.order, shown), True
        except HerdUnavailable:
            complain(
                f"Order {receipt.order} continues; `herd order show {receipt.order}` shows it."
            )
            raise
        finally:
            shown.end()
        return result, False

    def _follow(self, order_id: str, shown: _Shown) -> None:
        while True:
            try:
                for piece in self._herd.stream(order_id):
                    shown.more(piece)
            except StreamRestarted:
                shown.again()
                continue
            except OrderEnded as error:
                # What was paid for by its run limit is an answer, if a short one.
                if not error.result.receipt.charged:
                    raise
            return

    def _stop(self, order_id: str, shown: _Shown) -> Result | None:
        """Cancel an order; what was delivered until then is shown to its end, and paid."""
        try:
            cancel_surely(self._herd, order_id)
        except KeyboardInterrupt:
            complain(f"Order {order_id} may continue; `herd order cancel {order_id}` cancels it.")
            return None
        try:
            with suppress(OrderEnded, OrderSetAside):
                self._herd.result(order_id, CANCEL_WAIT_S)
            result = self._herd.answer(order_id)
        except (KeyboardInterrupt, ResultTimeout, HerdUnavailable):
            complain(f"Order {order_id} is being stopped; `herd order show {order_id}` shows it.")
            return None
        if result.text.startswith(shown.text):
            shown.more(result.text[len(shown.text) :])
        shown.end()
        return result


class _Shown:
    """The part of an answer that stands on the screen."""

    def __init__(self, screen: People | Machine) -> None:
        self._screen = screen
        self.text = ""

    def more(self, piece: str) -> None:
        self.text += piece
        self._screen.piece(piece)

    def again(self) -> None:
        self.end()
        self.text = ""
        self._screen.note("The worker was lost; the answer starts again:")

    def end(self) -> None:
        if self.text and not self.text.endswith("\n"):
            self.more("\n")


def _turns(count: int) -> str:
    return "1 turn is" if count == 1 else f"{count} turns are"
