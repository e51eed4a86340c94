"""SQL about the herd: keys, worker instances, the listening clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    Text,
    and_,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    update,
)

from herder.db.tables import IS_OUT, clock, in_state, key, orders, worker
from herder.domain.order import State
from herder.store.upsert import insert_or
from workers.transport.event_log import EventLog
from workers.wire import Announcement, PublicKey, WireError

_log = EventLog("herder.store.herd")

HERDER = "herder"
WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker instance as it announced itself.

    Attributes:
        state: `alive`, `draining`, `lost` (silent for a lease), or `gone` (said farewell).
        strays: attempts that it runs without being given them; they take its slots all the same.
        hello, answered: the hello that is to come back through the broker, and the last that did.
        hellos_sent: how often that hello was sent.
        unclaimed: attempts in a row that it was sent and did not claim.
        proven: whether it claimed an attempt since it joined, or since it left one unclaimed.
        clock_ahead_s: by how much its clock is ahead of the herders', as it finds; 0 for a few
            seconds either way.
        out: orders that the database has out with it, those that it has yet to claim among them.
    """

    instance: str
    kid: str
    name: str
    model: str
    slots: int
    context: int
    tokens_per_s: int
    weights: str
    state: str
    beat: int
    strays: int
    heard_s: int
    joined_us: int
    seen_us: int
    hello: int = 1
    answered: int = 0
    hellos_sent: int = 0
    unclaimed: int = 0
    proven: bool = False
    clock_ahead_s: int = 0
    out: int = 0

    @property
    def reached(self) -> bool:
        """Whether what is sent by the broker reaches it, as far as anybody knows."""
        return self.answered == self.hello

    @property
    def shown_state(self) -> str:
        """The state as people are shown it: `unreached` where it only beats."""
        return "unreached" if self.state == "alive" and not self.reached else self.state

    @property
    def usable_slots(self) -> int:
        """Slots that count: those of a worker that messages reach, one until it claimed an order.

        So a worker that takes messages and does nothing delays one order, and not as many as it
        says that it has slots.
        """
        if self.state != "alive" or not self.reached:
            return 0
        return self.slots if self.proven else 1

    @property
    def free(self) -> int:
        """Slots that may be given an order."""
        return max(0, self.usable_slots - self.strays - self.out)


_OUT_WITH = (
    select(func.count()).where(orders.c.instance == worker.c.instance, IS_OUT).scalar_subquery()
)
_WORKERS = select(worker, _OUT_WITH.label("out_with")).order_by(worker.c.name, worker.c.instance)
_HERE = _WORKERS.where(worker.c.state.in_(["alive", "draining"]))
_HERE_OF = _HERE.where(worker.c.model == bindparam("model"))
_ONE = _WORKERS.where(worker.c.instance == bindparam("which"))
_UNBOUND = select(func.count()).where(
    orders.c.model == bindparam("model"),
    orders.c.instance.is_(None),
    in_state(State.DISPATCHED),
    IS_OUT,  # implied, but only its words lead to the index
)


_NUMBERS = (
    *("slots", "context", "tokens_per_s", "beat", "strays", "heard_s", "joined_us", "seen_us"),
    *("hello", "answered", "hellos_sent", "unclaimed"),
)


def _to_worker(row: Row[Any]) -> Worker | None:
    """Return a row as the worker that it is; None, and a line in the log, where it is not one.

    SQLite keeps words in a column of numbers. Nobody is to count with them, or all would stop.
    """
    wrong = [name for name in _NUMBERS if type(getattr(row, name)) is not int]
    if wrong:
        _log.error("worker_unreadable", instance=row.instance, columns=wrong)
        return None
    return Worker(
        row.instance,
        row.kid,
        row.name,
        row.model,
        row.slots,
        row.context,
        row.tokens_per_s,
        row.weights,
        row.state,
        row.beat,
        row.strays,
        row.heard_s,
        row.joined_us,
        row.seen_us,
        row.hello,
        row.answered,
        row.hellos_sent,
        row.unclaimed,
        row.proven,
        row.clock_ahead_s,
        row.out_with,
    )


def workers_here(connection: Connection, model: str | None = None) -> list[Worker]:
    """Return the workers that beat, of one model or of all."""
    if model is None:
        return _to_workers(connection.execute(_HERE))
    return _to_workers(connection.execute(_HERE_OF, {"model": model}))


def all_workers(connection: Connection) -> list[Worker]:
    """Return every worker instance that ever announced itself."""
    return _to_workers(connection.execute(_WORKERS))


def _to_workers(rows: Iterable[Row[Any]]) -> list[Worker]:
    return [found for row in rows if (found := _to_worker(row)) is not None]


def get_worker(connection: Connection, instance: str) -> Worker | None:
    """Return a worker instance, whatever its state; None also where its row cannot be read."""
    row = connection.execute(_ONE, {"which": instance}).one_or_none()
    return None if row is None else _to_worker(row)


def unclaimed(connection: Connection, model: str) -> int:
    """Return the number of orders of a model that are out with nobody.

    None is that this version sent: those of earlier ones were for any worker.
    """
    return int(connection.execute(_UNBOUND, {"model": model}).scalar_one())


def put_worker(
    connection: Connection,
    instance: str,
    kid: str,
    announced: Announcement,
    *,
    beat: int,
    strays: int,
    heard_s: int,
    now_us: int,
    returns: bool = False,
) -> None:
    """Write down what a worker announced and reported; what it reported later already stays.

    An instance belongs to the key that announced it first: of another's, nothing is written. One
    that returns has to be reached by a hello anew.
    """
    values = {
        "name": announced.name,
        "model": announced.model,
        "slots": announced.slots,
        "context": announced.context,
        "tokens_per_s": announced.tokens_per_s,
        "weights": announced.weights,
        "state": "draining" if announced.draining else "alive",
        "beat": beat,
        "strays": strays,
        "heard_s": heard_s,
        "seen_us": now_us,
        "clock_ahead_s": announced.clock_ahead_s,
    }
    row = insert_or(connection, worker).values(
        instance=instance, kid=kid, joined_us=now_us, **values
    )
    if returns:
        anew = {"hello": worker.c.hello + 1, "hellos_sent": 0, "hello_heard_s": 0}
        values = {**values, **anew}
    connection.execute(
        row.on_conflict_do_update(
            index_elements=[worker.c.instance],
            set_=values,
            where=and_(worker.c.kid == kid, worker.c.beat < beat),
        )
    )


def set_worker_state(connection: Connection, instance: str, state: str) -> None:
    """Record that a worker drains, is lost, or is gone."""
    connection.execute(update(worker).where(worker.c.instance == instance).values(state=state))


def lose_silent(connection: Connection, before_heard_s: int) -> int:
    """Count workers as lost that were silent for a lease of the listening clock."""
    return connection.execute(
        update(worker)
        .where(worker.c.state.in_(["alive", "draining"]), worker.c.heard_s < before_heard_s)
        .values(state="lost")
    ).rowcount


# Keys


def add_key(connection: Connection, role: str, owner: str, public: PublicKey, now_us: int) -> None:
    """Believe a key from now on; one that is believed already stays as it is."""
    row = insert_or(connection, key).values(
        kid=public.kid, role=role, owner=owner, jwk=public.to_jwk(), created_us=now_us
    )
    connection.execute(row.on_conflict_do_nothing(index_elements=[key.c.kid]))


# As text: the database's driver would parse it, and one row that it cannot parse would be all.
_KEYS = select(key.c.kid, cast(key.c.jwk, Text).label("jwk")).where(key.c.role == bindparam("role"))
_LIVE_KEYS = _KEYS.where(key.c.revoked_us.is_(None))
_REVOKED_KEYS = _KEYS.where(key.c.revoked_us.is_not(None))
_LIVE_KIDS = select(key.c.kid).where(key.c.role == bindparam("role"), key.c.revoked_us.is_(None))


def live_kids(connection: Connection, role: str) -> set[str]:
    """Return the ids of the keys of a role that were not revoked.

    For who has checked a signature, and looks again whether its key is still believed.
    """
    return set(connection.execute(_LIVE_KIDS, {"role": role}).scalars())


def kids_of(connection: Connection, role: str, owner: str) -> list[str]:
    """Return the ids of the live keys of a role that an owner has, or that has this id itself."""
    mine = _LIVE_KIDS.where(or_(key.c.owner == owner, key.c.kid == owner)).order_by(key.c.kid)
    return list(connection.execute(mine, {"role": role}).scalars())


def key_owners(connection: Connection, role: str) -> list[str]:
    """Return the names of the owners of a role's live keys."""
    query = select(key.c.owner).where(key.c.role == role, key.c.revoked_us.is_(None)).distinct()
    return list(connection.execute(query.order_by(key.c.owner)).scalars())


def live_keys(connection: Connection, role: str) -> dict[str, PublicKey]:
    """Return the keys of a role that were not revoked, by `kid`."""
    return _to_keys(connection.execute(_LIVE_KEYS, {"role": role}))


def revoked_keys(connection: Connection, role: str) -> dict[str, PublicKey]:
    """Return the keys of a role that were believed once, by `kid`."""
    return _to_keys(connection.execute(_REVOKED_KEYS, {"role": role}))


def _to_keys(rows: Iterable[Row[Any]]) -> dict[str, PublicKey]:
    """Return keys by `kid`. One that cannot be read opens nothing, and keeps no other from it."""
    return {row.kid: one for row in rows if (one := _parsed(row.kid, row.jwk)) is not None}


@lru_cache(maxsize=1024)
def _parsed(kid: str, jwk: str) -> PublicKey | None:
    """Return a key as it stands there: every look at the keys is one at all of them."""
    try:
        return PublicKey.from_jwk(json.loads(jwk))
    except (WireError, ValueError, TypeError, AttributeError, RecursionError):
        _log.error("key_unreadable", kid=kid)
        return None


def revoke_key(connection: Connection, kid: str, now_us: int) -> bool:
    """Believe a key no more; says whether it was believed."""
    changed = connection.execute(
        update(key).where(key.c.kid == kid, key.c.revoked_us.is_(None)).values(revoked_us=now_us)
    )
    return changed.rowcount == 1


# The listening clock

MIN_APART_US = 900_000
"""Less than a second, so that the jitter of a herder that marks each second costs no second."""

_CLOCK = select(clock)


def start_clock(connection: Connection) -> None:
    """Write down the clock of a new herd, in which nobody has listened yet."""
    connection.execute(insert(clock).values(id=1, heard_s=0, marked_us=0))


def heard_s(connection: Connection) -> int:
    """Seconds in which somebody listened, since the beginning."""
    return int(connection.execute(_CLOCK).one().heard_s)


class Heard(NamedTuple):
    """The listening clock.

    Attributes:
        heard_s: seconds in which somebody listened, since the beginning.
        marked_us: when a herder, whichever, last sent a marker: each does about each second.
        heard_us: when the last marker came that was read, by the clock of whoever carried it.
    """

    heard_s: int
    marked_us: int
    heard_us: int


def listening(connection: Connection) -> Heard:
    """Return whether herders work, and hear anything."""
    row = connection.execute(_CLOCK).one()
    return Heard(row.heard_s, row.marked_us, row.heard_us)


def take_mark(connection: Connection, now_us: int, every_us: int) -> int | None:
    """Take the right to send the clock's next marker.

    Args:
        connection: a transaction that writes.
        now_us: the time.
        every_us: how far apart markers stand.

    Returns:
        The marker's number, or None where another herder sent one just now.
    """
    row: Mapping[str, int] = dict(connection.execute(_CLOCK).one()._mapping)
    # A mark in the future is one from before the clock was set back.
    if row["marked_us"] <= now_us < row["marked_us"] + every_us:
        return None
    taken = connection.execute(
        update(clock).where(clock.c.marked_us == row["marked_us"]).values(marked_us=now_us)
    )
    return row["heard_s"] + 1 if taken.rowcount == 1 else None


_HEAR_MARK = (
    update(clock)
    .where(
        clock.c.heard_s == bindparam("before"),
        or_(
            clock.c.heard_us <= bindparam("at_us") - MIN_APART_US,
            clock.c.heard_us > bindparam("at_us"),  # that clock was set back
        ),
    )
    .values(heard_s=bindparam("number"), heard_us=bindparam("at_us"))
)


def hear_mark(connection: Connection, number: int, at_us: int) -> bool:
    """Add the second of a marker that was read; a marker counts once, and a second once.

    Args:
        connection: a transaction that writes.
        number: the marker's.
        at_us: when it came, by the clock of whoever carried it: herders whose own clocks differ
            would otherwise mark more than a second each second.
    """
    values = {"before": number - 1, "number": number, "at_us": at_us}
    return connection.execute(_HEAR_MARK, values).rowcount == 1
