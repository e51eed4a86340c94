"""The story of `herd demo`: who asks what at which price, and the outcome."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from herder.store.herd import Worker
from herder.types import NamedBalance, Receipt
from ledger import AuditReport

WORKERS = 2
SLOTS = 2
"""Few, so that a queue forms."""

ENDED = {"completed", "failed", "cancelled", "expired"}


@dataclass(frozen=True, slots=True)
class Ask:
    """A client's question.

    Attributes:
        percent: what it offers, in percent of what is needed; None for the automatic fee.
    """

    account: str
    prompt: str
    tokens: int
    percent: int | None = None


DEPOSITS = {"ada": 1000, "grace": 1000, "linus": 1000}

FIRST = (
    Ask("ada", "Tell me a long story about a llama who herds sheep.", 64),
    Ask("grace", "Explain in detail how bread is made, step by step.", 64),
    Ask("linus", "Describe a day in the life of a lighthouse keeper.", 64),
    Ask("linus", "Explain to a child how a computer works.", 64),
)
"""These fill all slots, so that the others have to wait."""

WAITING = (
    Ask("ada", "Write a story in 10 words or less.", 10, 150),
    Ask("grace", "What is the meaning of life?", 20, 400),
    Ask("linus", "Name three colours.", 12, 100),
    Ask("ada", "What is a llama?", 16, 800),
    Ask("grace", "Why is the sky blue?", 24, 125),
    Ask("linus", "How many days has a week?", 32, 300),
    Ask("ada", "Write a title for a book about sheep.", 24, 200),
    Ask("grace", "Say hello in French.", 8, 600),
    Ask("linus", "What is 2 + 2?", 24, 110),
    Ask("ada", "Describe the sea in one sentence.", 32, 250),
    Ask("grace", "Is water wet? Answer yes or no.", 32, 175),
    Ask("linus", "Who wrote Hamlet?", 16, 500),
)
"""Some answers end by themselves before the tokens are used up: the rest is returned."""


@dataclass(slots=True)
class Placed:
    """An order of the demo.

    Attributes:
        number: as it was submitted, from 1.
        receipt: as it stood last.
        served: its place in the order of service, once it was dispatched.
        by_price: the place that its price gives it among those that waited with it.
    """

    number: int
    ask: Ask
    receipt: Receipt
    text: str = ""
    finish_reason: str | None = None
    served: int | None = None
    by_price: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.receipt.state in ENDED


@dataclass(slots=True)
class Story:
    """All that the demo has to show, as far as it has come."""

    model: str = ""
    workers: list[Worker] = field(default_factory=list)
    ready_ms: int = 0
    took_ms: int = 0
    orders: list[Placed] = field(default_factory=list)
    before: list[NamedBalance] = field(default_factory=list)
    after: list[NamedBalance] = field(default_factory=list)
    audit: AuditReport | None = None
    trouble: list[str] = field(default_factory=list)

    @property
    def revenue(self) -> int:
        """What the herd earned, in winston."""
        circulating = self.audit.circulating if self.audit else 0
        return circulating - sum(balance.posted for balance in self.after)

    def to_dict(self) -> dict[str, Any]:
        """Return the demo as one JSON document."""
        return {
            "ok": not self.trouble,
            "trouble": self.trouble,
            "model": self.model,
            "workers": [
                {"name": one.name, "slots": one.slots, "tokens_per_s": one.tokens_per_s}
                for one in self.workers
            ],
            "ready_ms": self.ready_ms,
            "took_ms": self.took_ms,
            "orders": [
                {
                    "number": one.number,
                    "prompt": one.ask.prompt,
                    "served": one.served,
                    "by_price": one.by_price,
                    "text": one.text,
                    "finish_reason": one.finish_reason,
                    "receipt": one.receipt.to_dict(),
                }
                for one in self.orders
            ],
            "balances": {
                "before": [asdict(balance) for balance in self.before],
                "after": [asdict(balance) for balance in self.after],
            },
            "revenue": self.revenue,
            "audit": None
            if self.audit is None
            else {**asdict(self.audit), "clean": self.audit.clean},
        }


class Shown(Protocol):
    """A display of the demo as it runs."""

    def starting(self, model: Path) -> None:
        """Show that the processes are starting."""

    def joined(self, worker: Worker) -> None:
        """Show a worker that has its model and is known to the herder."""

    def opened(self, story: Story) -> None:
        """Show the accounts."""

    def submitted(self, placed: Placed) -> None:
        """Show an order that was accepted."""

    def progress(self, story: Story) -> None:
        """Show the progress; called repeatedly while orders run."""

    def answered(self, placed: Placed, story: Story) -> None:
        """Show an order that ended."""

    def finished(self, story: Story) -> None:
        """Everything is known: receipts, order of service, balances, audit."""

    def failed(self, reason: str, tail: list[str]) -> None:
        """Show why it did not get that far, and what the processes said last."""

    def interrupted(self) -> None:
        """Show that a signal ended it and everything has stopped."""

    def stopping(self) -> None:
        """Show that the processes are being stopped."""

    def close(self) -> None:
        """End the display; called in any case."""
