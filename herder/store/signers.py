"""SQL about who signs what workers send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from herder.db.tables import worker


class Signer(NamedTuple):
    """The part of a worker that its messages are judged by, and that an order notes.

    Attributes:
        kid: the key that it announced.
        proven: whether it claimed an attempt, or ended one.
    """

    instance: str
    kid: str
    name: str
    weights: str
    proven: bool


_COLUMNS = (worker.c.instance, worker.c.kid, worker.c.name, worker.c.weights, worker.c.proven)
_SIGNERS = select(*_COLUMNS).where(worker.c.instance.in_(bindparam("which", expanding=True)))


def signers(connection: Connection, instances: Iterable[str]) -> dict[str, Signer]:
    """Return the names of worker instances for orders to note, whatever else their rows hold."""
    rows = connection.execute(_SIGNERS, {"which": sorted(set(instances))})
    return {row.instance: Signer._make(row) for row in rows}
