"""Tells a herder's operator where the herd serves another model than this herder was given."""

from __future__ import annotations

from herder.db.database import Database
from herder.store import models as model_sql
from workers.transport.event_log import EventLog

_log = EventLog("herder.herd.named_model")

_DO = (
    "give every herder the same HERD_MODEL, or none: the herder that starts last names the herd's "
    "model"
)


class NamedModel:
    """Compares the herd's model with the one that this herder named at its start.

    Several herders with different `HERD_MODEL`, or a herder that was left behind by
    `herd model set NAME --default`, would take the herd back at their next start.

    Args:
        database: where the herd's model stands.
        name: `HERD_MODEL` of this herder.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._seen = name

    def step(self, _limit: int) -> bool:
        """Log a warning once for each other model that the herd came to serve.

        Returns:
            False: there is never more to do at once.

        Raises:
            HerdUnavailable: the database is out of reach.
        """
        with self._database.read() as connection:
            _, serves, _ = model_sql.read_policy(connection)
        if serves not in (self._seen, self._name):
            _log.warning("herd_model_differs", serves=serves, named=self._name, do=_DO)
        self._seen = serves
        return False
