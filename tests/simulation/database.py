"""The database of a seed: SQLite in memory. Its commits fail, and processes die at them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from herder.db.database import Database
from herder.db.tables import policy
from herder.errors import HerdUnavailable
from herder.host import home
from herder.settings import InitialPolicy, load_settings
from herder.store import models as model_sql
from tests.simulation.clockwork import Clockwork
from tests.simulation.keys import HERDER_KEY
from tests.simulation.rules import Rules
from tests.simulation.weather import Layout

MODEL = "stub"
NOWHERE = Path("/nonexistent/herd-of-the-simulator")


class Deadlock(sqlite3.OperationalError):
    """What PostgreSQL says to one of two that wait for each other: its step is taken again."""

    sqlstate = "40P01"


class SimDatabase(Database):
    """SQLite in memory; whatever writes passes the places where something may happen to it."""

    def __init__(self, time: Clockwork) -> None:
        super().__init__("sqlite://")
        self._time = time
        self.raw = driver_of(self)
        _template().backup(self.raw)
        self.rules: Rules | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction of the herder's, judged once it is committed."""
        rules = self.rules
        if rules is None:
            with super().write() as connection:
                yield connection
            return
        before = self.raw.total_changes
        try:
            with super().write() as connection:
                rules.inside = True
                try:
                    yield connection
                    if self.raw.total_changes != before:
                        self._before_commit()
                finally:
                    rules.inside = False
        except HerdUnavailable as error:
            if isinstance(error.__cause__, OperationalError):
                # Others go on before the step is taken again.
                self._time.point("after it was undone", "a process dies before a commit")
            raise
        if self.raw.total_changes != before:
            rules.committed()
            self._time.point("after a commit", "a process dies after a commit")

    def _before_commit(self) -> None:
        time = self._time
        time.point("before a commit", "a process dies before a commit", inside=True)
        if not time.mortal or not time.chance(time.weather.fail_write):
            return
        time.fault("a commit fails")
        how = time.rng.random()
        if how < 0.3:
            time.count("a commit finds the database busy")
            raise HerdUnavailable("The database is busy; try again.")
        if how < 0.7:
            time.count("a transaction is undone for others' sake")
            cause = OperationalError("COMMIT", {}, Deadlock("deadlock detected"))
            raise HerdUnavailable("The database is busy; try again.") from cause
        time.count("a commit fails")
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("disk I/O error"))


def driver_of(database: Database) -> sqlite3.Connection:
    """The one connection in which a database in memory lives."""
    with database.read() as connection:
        driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


@cache
def _template() -> sqlite3.Connection:
    """A database that was made as `herd init` makes it, once a process: the copy is quick."""
    database = Database("sqlite://")
    initial = InitialPolicy(
        model=MODEL, fee_bump="1.005", auto_multiplier_max="10", bytes_per_word=16
    )
    home._fill(database, load_settings(NOWHERE), initial, HERDER_KEY, [])
    return driver_of(database)


def set_policy(database: Database, layout: Layout) -> None:
    """Have the seed's rates and policy in the database."""
    values = layout.policy
    with database.write() as connection:
        model_sql.put_model(connection, MODEL, layout.rates)
        connection.execute(
            update(policy).values(
                fee_bump=str(values.fee_bump),
                auto_multiplier_max=str(values.auto_multiplier_max),
                auto_half_life_s=values.auto_half_life_s,
                bytes_per_word=values.bytes_per_word,
                charge_unused=values.charge_unused,
                aging_s=values.aging_s,
                max_open_orders=10_000,
                tokens_per_minute=0,
            )
        )
