"""The output of `herd demo agents`: for people as it happens, or one JSON document at the end."""

from __future__ import annotations

import io
import json
import sys

from rich.console import Console
from rich.text import Text

from herder.demo.agents_story import BOTS, GUEST, Gathering
from herder.examples.room.rules import Said

WIDTH = 80


class People:
    """Shows it to people."""

    def __init__(self, console: Console | None = None) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # whatever a model says, in any locale
        self._console = console or Console(highlight=False)
        self._console.width = min(WIDTH, self._console.width)

    def starting(self, seconds: int) -> None:
        """Show that the processes are starting."""
        self._console.rule("[bold]Llama Herder: programs that buy")
        self._say(
            f"A herd, a gateway and a chat room on this machine, for {seconds} seconds. In the "
            f"room: two chatbots ({' and '.join(BOTS)}), a guest ({GUEST}), and an agent that "
            f"listens: it has the herd grade what is said, and buys when the grade is good."
        )
        self._say("Loading the model …")

    def opened(self, gathering: Gathering) -> None:
        """Everybody is there."""
        for balance in gathering.before:
            self._say(f"account {balance.account:<9} {balance.posted:>6} winston")
        self._head("In the room")

    def said(self, said: Said) -> None:
        """Something was said in the room."""
        style = "cyan" if said.name in BOTS else "bold"
        self._console.print(Text.assemble((f"{said.name:>6}: ", style), said.text))

    def told(self, name: str, line: str) -> None:
        """Show a line that a program wrote."""
        if line.startswith("asked"):
            return
        shown = "".join(filter(str.isprintable, line.rpartition(" [")[0] or line))
        self._console.print(Text(f"{name:>16}: {shown}", "dim"), overflow="ellipsis", no_wrap=True)

    def finished(self, gathering: Gathering) -> None:
        """Everything is known."""
        self._head("Said, bought and paid")
        counts = gathering.counts
        for name in (GUEST, *BOTS):
            count = sum(said.name == name for said in gathering.said)
            self._say(f"{name} said {count} things.")
        self._say(
            f"The chatbots paid {gathering.charged['bots']} winston for "
            f"{gathering.orders['bots']} answers."
        )
        self._say(
            f"The agent paid {gathering.charged['agent']} winston for "
            f"{gathering.orders['agent']} grades: {counts.get('buys', 0)} buys, "
            f"{counts.get('skips', 0)} skips, {counts.get('errors', 0)} without a number."
        )
        for before, after in zip(gathering.before, gathering.after, strict=True):
            self._say(f"account {after.account:<9} {before.posted:>6} → {after.posted:>6} winston")
        if not gathering.trouble:
            self._say("The books balance.")
        for line in gathering.trouble:
            self._console.print(Text(line, "bold red"))

    def failed(self, reason: str, tail: list[str]) -> None:
        """Show why it cannot continue."""
        self._console.print(Text(f"The demo failed: {reason}", "bold red"))
        for line in tail:
            self._console.print(Text(line, "dim"))

    def interrupted(self) -> None:
        """Show that it was stopped."""
        self._say("The demo was stopped; nothing of it is left.")

    def stopping(self) -> None:
        """Show that it is stopping what it started."""

    def _head(self, title: str) -> None:
        self._console.print()
        self._console.print(Text(title, "bold"))

    def _say(self, text: str) -> None:
        self._console.print(Text(text))


class Machine:
    """Prints one JSON document at the end, and nothing else to standard output."""

    def starting(self, seconds: int) -> None:
        """Show nothing."""

    def opened(self, gathering: Gathering) -> None:
        """Show nothing."""

    def said(self, said: Said) -> None:
        """Show nothing."""

    def told(self, name: str, line: str) -> None:
        """Show nothing."""

    def finished(self, gathering: Gathering) -> None:
        """Print the document."""
        sys.stdout.write(json.dumps(gathering.to_dict(), indent=1, ensure_ascii=True) + "\n")

    def failed(self, reason: str, tail: list[str]) -> None:
        """Print the document of a failed demo; what the processes said goes to standard error."""
        sys.stderr.write("\n".join([*tail, ""]))
        sys.stdout.write(json.dumps({"ok": False, "trouble": [reason]}) + "\n")

    def interrupted(self) -> None:
        """Show nothing."""

    def stopping(self) -> None:
        """Show nothing."""
