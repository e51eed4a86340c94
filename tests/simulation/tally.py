"""What happened to the herd of a seed, counted: a simulator that never does something says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

WRITERS = (
    *("a submission", "a bid", "a cancellation"),
    *("a settlement", "a dispatch", "a batch of beats", "a duty"),
)
READERS = ("a quote", "a wait")
"""Who asks the database, as `tests.simulation.database.CALLS` names them."""

KINDS: dict[str, tuple[str, ...]] = {
    "clients": (
        "an order arrives",
        "a call is repeated",
        "a key is used for another call",
        "a quote is asked for",
        "an order names its quote",
        "a call is refused for its quote's age",
        "a call is refused for its fee",
        "a call is refused for the balance",
        "a call is refused for the account's limits",
        "a new bid is taken",
        "a new bid is refused",
        "an order is cancelled while it waits",
        "an order is cancelled while it runs",
        "another's order is asked for",
        "the operator refunds",
        "the operator sets rates",
        "texts are purged",
        "an order's end is waited for",
        "an order's text is read along",
        "a reader hangs up",
    ),
    "crashes": (
        "a process dies before a commit",
        "a process dies after a commit",
        "a process dies before a publish",
        "a process dies amid a publish",
        "a process dies after a publish",
        "a process dies before it sends to Redis",
        "a process dies after it sent to Redis",
        "a herder dies with beats that it read",
        "a herder dies",
        "a worker dies",
    ),
    "pauses": (
        "a process stands for a moment",
        "a process is stopped in the middle",
        "a herder is stopped",
        "a worker is stopped",
    ),
    "messages": (
        "a message is lost",
        "a message is repeated",
        "a message is delayed",
        "a message is overtaken",
        "a queue is reordered",
    ),
    "outages": (
        "the broker is away",
        "Redis is away",
        "the broker is wiped",
        "Redis is wiped",
        "the broker goes away amid a publish",
        "Redis goes away amid a command",
        "a herder is cut off",
        "a worker is cut off",
        "all workers are cut off",
    ),
    "the database": (
        "the database is away",
        *(f"{who} finds no database" for who in (*WRITERS, *READERS)),
        *(f"the commit of {who} is cut off" for who in WRITERS),
        "a commit that was cut off was made",
        "a commit that was cut off was not made",
    ),
    "clocks": ("a clock is set forwards", "a clock is set backwards"),
    "writes": (
        "a commit fails",
        "a commit finds the database busy",
        "a transaction is undone for others' sake",
    ),
    "workers": (
        "a worker drains",
        "a worker hands an order back",
        "a worker fails an order for now",
        "a worker fails an order for good",
        "a worker hangs in an order",
        "a worker's key is revoked",
    ),
    "strangers": ("a stranger writes to the herder", "a stranger writes to the beats"),
    "what came of it": (
        "an attempt lapses unclaimed",
        "an attempt lapses",
        "a late beat takes a lapsed order back",
        "a late answer of a lapsed order counts",
        "a late answer of one sent out again is void",
        "an order expires unbegun",
        "an order expires by its worker's deadline",
        "an order expires over its worker's head",
        "a called-off order ends by its worker's word",
        "a called-off order ends without its worker",
        "a called-off order is paid as far as it was read",
        "a called-off order that nobody read costs nothing",
        "a called-off order had been read to its end",
        "an order fails after too many tries",
        "an order fails after too many times out",
        "a message is answered",
    ),
}
"""Every kind of thing that a seed may bring about."""

BESIDES = (
    "a key buys again after a cancellation",
    "a call of which nothing is known is cancelled",
    *(f"{who} finds no database" for who in ("a refund", "something else")),
    *(f"the commit of {who} is cut off" for who in ("a refund", "something else")),
)
"""What is counted and may be missing: it is rare."""

ALL = frozenset(kind for kinds in KINDS.values() for kind in kinds)


def added(tallies: Iterable[Mapping[str, int]]) -> Counter[str]:
    """All of them together."""
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally)
    return total


def missing(tally: Mapping[str, int]) -> list[str]:
    """The kinds that did not occur."""
    return sorted(ALL - tally.keys())


def table(tally: Mapping[str, int]) -> list[str]:
    """Lines that people read: how often each kind occurred."""
    lines: list[str] = []
    for group, kinds in KINDS.items():
        lines.append(f"{group}:")
        lines += [f"  {tally.get(kind, 0):>9,}  {kind}" for kind in kinds]
    return lines
