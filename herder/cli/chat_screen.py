"""The input and output of `herd chat`, for people and for programs."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from herder.cli.base import complain_of
from herder.cli.show import complain, one_line, write_text
from herder.cli.submit import say_who_is_away
from herder.errors import HerdError, InvalidPrompt, OrderEnded, OrderSetAside

if TYPE_CHECKING:
    from herder.interface import BuyerHerd
    from herder.types import Receipt, Result

MAX_LINE_BYTES = 4 * 2**20
"""The longest line that is read; the herd's own bounds are lower."""
PROMPT = "> "
HELP = """\
/fee N     offer N winston for each message; /fee base exactly what it needs, /fee auto the
           automatic fee again
/clear     forget the conversation so far
/quit      end the chat; so does Ctrl-D
/help      show this help
Ctrl-C     cancel the running answer; what was generated until then is kept and charged"""


@dataclass(frozen=True, slots=True)
class Spent:
    """A turn that was bought.

    Attributes:
        turn: its number, from 1.
        result: the answer.
        total: winston that all turns cost until now.
        available: winston that the account has left.
        forgotten: turns that were forgotten for it.
        interrupted: Ctrl-C ended it.
    """

    turn: int
    result: Result
    total: int
    available: int
    forgotten: int
    interrupted: bool


class People:
    """Answers to standard output, all else to standard error, dimly."""

    def note(self, text: str) -> None:
        """Show something that is not an answer."""
        from rich.console import Console

        # Each line by itself: what stands in one came from others.
        for line in text.split("\n"):
            console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
            console.print(one_line(line), style="dim", soft_wrap=True)

    def begun(self, herd: BuyerHerd, receipt: Receipt) -> None:
        """Show an order that was accepted."""
        say_who_is_away(herd, receipt)

    def piece(self, text: str) -> None:
        """Show a piece of an answer."""
        write_text(text)

    def ended(self, spent: Spent) -> None:
        """Show that an answer is complete or was ended, and what it cost."""
        receipt = spent.result.receipt
        how = "" if receipt.state == "completed" else f"{receipt.state}: "
        self.note(
            f"[{how}{receipt.charged} of {receipt.fee} winston; {spent.total} in total; "
            f"{spent.available} available]"
        )

    def failed(self, _: int, error: HerdError) -> None:
        """Show that there is no answer."""
        complain_of(error)


class Machine:
    """One JSON object a turn, one a line; what is for people goes to standard error."""

    def note(self, text: str) -> None:
        """Show something that is not an answer."""
        for line in text.split("\n"):
            complain(line)

    def begun(self, herd: BuyerHerd, receipt: Receipt) -> None:
        """Show an order that was accepted."""
        say_who_is_away(herd, receipt)

    def piece(self, _: str) -> None:
        """Show nothing yet: the answer comes as a whole."""

    def ended(self, spent: Spent) -> None:
        """Show an answer that is complete or was ended."""
        result = spent.result
        self._print(
            {
                "turn": spent.turn,
                "order": result.order,
                "text": result.text,
                "finish_reason": result.finish_reason,
                "charged": result.receipt.charged,
                "total": spent.total,
                "available": spent.available,
                "forgotten": spent.forgotten,
                "interrupted": spent.interrupted,
                "receipt": result.receipt.to_dict(),
            }
        )

    def failed(self, turn: int, error: HerdError) -> None:
        """Show that there is no answer."""
        told: dict[str, object] = {"code": error.code, "message": error.message}
        document: dict[str, object] = {"turn": turn, "error": told}
        if isinstance(error, OrderEnded | OrderSetAside):
            document["receipt"] = error.result.receipt.to_dict()
        self._print(document)
        complain_of(error)

    def _print(self, document: dict[str, object]) -> None:
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        sys.stdout.write(json.dumps(document, ensure_ascii=not unicode) + "\n")
        sys.stdout.flush()


class Keyboard:
    """Lines that somebody types; they may be edited where Python has readline."""

    def __init__(self, *, quiet: bool) -> None:
        """Prepare it.

        Args:
            quiet: standard output is a program's: no prompt there.
        """
        self._shows_itself = sys.stdout.isatty() and not quiet
        if self._shows_itself:
            with suppress(ImportError):  # a Python without it reads lines all the same
                import readline  # noqa: F401  (input() edits lines once it is loaded)

    def read(self) -> str | None:
        """Return the next line; None at the end.

        Raises:
            InvalidPrompt: it is not text.
        """
        try:
            if self._shows_itself:
                line = input(PROMPT)
            else:
                sys.stderr.write(PROMPT)
                sys.stderr.flush()
                line = sys.stdin.readline()
                if not line:
                    return None
            line.encode()
        except EOFError:
            sys.stdout.write("\n")
            return None
        except UnicodeError:
            raise InvalidPrompt("The line is not UTF-8 text.") from None
        return line.rstrip("\n")


class Pipe:
    """Lines of a file or a program."""

    def read(self) -> str | None:
        """Return the next line; None at the end.

        Raises:
            InvalidPrompt: it is not text, or is too long.
        """
        content = sys.stdin.buffer.readline(MAX_LINE_BYTES + 1)
        if not content:
            return None
        if len(content) > MAX_LINE_BYTES:
            raise InvalidPrompt(
                f"The line has more than {MAX_LINE_BYTES} bytes, more than any herd accepts.",
                most=MAX_LINE_BYTES,
            )
        try:
            return content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise InvalidPrompt("The line is not UTF-8 text.") from None
