"""What really happened, as nobody in the herd knows it: the rules compare the database with it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from herder.domain.pricing import Rates
from herder.domain.quote_terms import Terms
from tests.simulation.shadow import Row
from workers.transport.delivery import Delivery
from workers.wire import Outcome

Attempt = tuple[str, int]
"""An order's id, and the number of the attempt."""

Done = tuple[str, int, str]
"""The same, and a worker instance."""


TOKEN = " on"


@dataclass
class Truth:
    """What workers and clients did.

    Attributes:
        taken: attempts that a worker was given by the broker.
        greeted: (instance, number) of each hello that a worker was given by the broker.
        outcomes: how workers ended them, whether anybody heard of it or not.
        streamed: how many tokens of an attempt reached the stream of its text.
        published: attempts whose message the broker was given.
        markers: markers of the listening clock that some herder was given.
        called_off: orders that a client cancelled, or tried to.
        revoked: worker instances whose key is believed no more.
        accepted: orders that a client was told of.
        announced: orders whose end was announced.
        rates: that stood at some time.
        quotes: that clients were given.
        runs: who runs an attempt, and how many tokens it has by now.
        noted: tokens that each reader of an attempt says it was given, or is about to be.
        given: tokens of an attempt that some reader was given, since Redis was wiped last.
    """

    taken: set[Done] = field(default_factory=set)
    greeted: set[tuple[str, int]] = field(default_factory=set)
    outcomes: dict[Done, Outcome] = field(default_factory=dict)
    streamed: dict[Attempt, int] = field(default_factory=dict)
    published: set[Attempt] = field(default_factory=set)
    markers: int = 0
    called_off: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    announced: set[str] = field(default_factory=set)
    rates: set[Rates] = field(default_factory=set)
    quotes: list[Terms] = field(default_factory=list)
    runs: dict[Attempt, tuple[str, Callable[[], int]]] = field(default_factory=dict)
    noted: dict[Attempt, dict[str, int]] = field(default_factory=dict)
    given: dict[Attempt, int] = field(default_factory=dict)

    def text_so_far(self, order: str, attempt: int) -> tuple[str, int]:
        """An attempt's text by now, and its tokens."""
        if (order, attempt) not in self.runs:
            return "", 0
        instance, generated = self.runs[order, attempt]
        return text_of(instance, attempt, generated()), generated()

    def note(self, delivery: Delivery) -> None:
        """A reader's word of what it was given, or is about to be."""
        readers = self.noted.setdefault((delivery.order, delivery.attempt), {})
        readers[delivery.reader] = delivery.reach.tokens

    def give(self, order: str, attempt: int, shown: str) -> None:
        """A reader was given so much of an attempt."""
        key = (order, attempt)
        self.given[key] = max(self.given.get(key, 0), shown.count(TOKEN))

    def forget_readers(self) -> None:
        """Redis was wiped: what was noted and given before is known to nobody."""
        self.noted.clear()
        self.given.clear()

    def came_to_nothing(self, row: Row) -> bool:
        """Whether an order's worker gave it back, or failed it for now."""
        outcome = self.outcomes.get((row.id, row.attempt, row.instance or ""))
        return outcome is not None and outcome.result != "completed"


def text_of(instance: str, attempt: int, generated: int) -> str:
    """The text that a worker makes of so many tokens."""
    return f"{instance} #{attempt}" + TOKEN * generated if generated else ""


def peek(token: str) -> tuple[str, dict[str, Any]]:
    """The kind and the body of a sealed message, unchecked."""
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "==="))
    return str(claims["kind"]), claims["body"]
