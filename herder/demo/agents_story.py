"""The story of `herd demo agents`: who says and buys what, and the outcome."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from herder.examples.room.rules import Said
from herder.types import NamedBalance
from ledger import AuditReport

GUEST = "ada"
BOTS = {"Lenny": "a cheerful old sailor", "Mabel": "a cook who loves to talk about food"}
CHANCE = 40
SEEDS = {"Lenny": 2, "Mabel": 4}
"""Of their draws: both answer the first three messages that they are free for."""
DEPOSITS = {"bots": 10_000, "agent": 10_000, "exchange": 0}
PRICE = 50
SPEECH_S = 6.0
"""Seconds between two messages of the guest."""
GRADE_S = 5.0
LINES = (
    "Good morning, everybody! What a lovely day.",
    "I had the best breakfast of my life.",
    "What do you like most about the sea?",
    "The weather is terrible today. I hate rain.",
    "I lost my hat in the storm, and I am sad.",
    "But the market is up, and everybody is happy!",
    "This is the best chat room in the world. I love it!",
    "What shall we eat tonight?",
    "My soup is cold, and the bread is hard.",
    "Thank you all, you are wonderful.",
)
"""The guest's lines; the agent grades their moods."""
_COUNT = re.compile(r"\b([a-z]+)=(\d+)")


@dataclass(slots=True)
class Gathering:
    """The outcome.

    Attributes:
        said: in the room, oldest first.
        counts: the agent's own: requests, buys, skips, errors, refused.
        lines: what the programs wrote, whose it was and what.
        orders: by account: how many completed.
        charged: by account, for its orders, in winston.
        trouble: what should not be.
    """

    model: str = ""
    seconds: int = 0
    said: list[Said] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)
    orders: dict[str, int] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)
    before: list[NamedBalance] = field(default_factory=list)
    after: list[NamedBalance] = field(default_factory=list)
    audit: AuditReport | None = None
    trouble: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `--json`."""
        return {"ok": not self.trouble, "price": PRICE} | asdict(self)


class Shown(Protocol):
    """A display of the demo."""

    def starting(self, seconds: int) -> None:
        """Show that the processes are starting."""

    def opened(self, gathering: Gathering) -> None:
        """Everybody is there."""

    def said(self, said: Said) -> None:
        """Something was said in the room."""

    def told(self, name: str, line: str) -> None:
        """Show a line that a program wrote."""

    def finished(self, gathering: Gathering) -> None:
        """Everything is known."""

    def interrupted(self) -> None:
        """Show that it was stopped."""

    def failed(self, reason: str, tail: list[str]) -> None:
        """Show why it cannot continue."""

    def stopping(self) -> None:
        """Show that it is stopping what it started."""


def counts_in(line: str) -> dict[str, int]:
    """Return the counts at the end of a line of the agent's.

    >>> counts_in("bought [requests=3 buys=1]")
    {'requests': 3, 'buys': 1}
    """
    return {name: int(count) for name, count in _COUNT.findall(line.rpartition("[")[2])}


def troubles(gathering: Gathering) -> list[str]:
    """Return the faults of a demo. Pure.

    Args:
        gathering: with everything but `trouble`.
    """
    found = []
    paid = {
        before.account: before.posted - after.posted
        for before, after in zip(gathering.before, gathering.after, strict=True)
    }
    if not {said.name for said in gathering.said} & set(BOTS):
        found.append("No chatbot said anything.")
    if not gathering.counts.get("requests"):
        found.append("The agent asked nothing.")
    buys, bought = gathering.counts.get("buys", 0), -paid["exchange"]
    # The agent may have been stopped between its last payment and the word that it was made.
    if bought not in (buys * PRICE, (buys + 1) * PRICE):
        found.append(f"The exchange has {bought} winston; {buys} buys were counted.")
    if paid["bots"] != gathering.charged["bots"]:
        found.append("The chatbots' account does not fit their receipts.")
    if paid["agent"] != gathering.charged["agent"] + bought:
        found.append("The agent's account does not fit its receipts and buys.")
    if gathering.audit is None or not gathering.audit.clean or gathering.audit.open_holds:
        found.append("The audit found that the books do not balance.")
    return found
