"""The database of a seed: SQLite in memory.

Its commits fail, and processes die at them; it is away, and connections are lost amid a commit.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from herder.db.database import Database
from herder.db.outages import CommitUnknown
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


AWAY_S = (0.3, 1, 3, 10, 40)
"""How long it is away. The longest is more than `herder.db.database.SETTLE_S`."""

CALLS = {
    "OrderIntake.submit": "a submission",
    "OrderIntake.rebid": "a bid",
    "OrderIntake.refund": "a refund",
    "Cancellation.cancel": "a cancellation",
    "Quotes.quote": "a quote",
    "OrderReader.answer": "a wait",
    "Settlement.settle": "a settlement",
    "Dispatcher._take": "a dispatch",
    "HeartbeatProcessor.hear": "a batch of beats",
    "Service.tick": "a duty",
}
"""Who asks the database, by the outermost of these functions that is being run."""
SOMEBODY = "something else"


class Deadlock(sqlite3.OperationalError):
    """What PostgreSQL says to one of two that wait for each other: its step is taken again."""

    sqlstate = "40P01"


class SimDatabase(Database):
    """SQLite in memory; whatever writes passes the places where something may happen to it."""

    def __init__(self, time: Clockwork) -> None:
        super().__init__("sqlite://", any_version=True)
        self._time = time
        self.raw = driver_of(self)
        _template().backup(self.raw)
        self.rules: Rules | None = None
        self.away_until_us = 0

    def go_away(self) -> None:
        """Be out of reach for a while."""
        for_s = self._time.rng.choice(AWAY_S)
        self.away_until_us = self._time.now_us + int(for_s * 1_000_000)
        self._time.count("the database is away")
        self._time.note(f"the database is away for {for_s} s")

    def _reach(self) -> None:
        """Fail where it is away; what stands outside of the story always reaches it."""
        time = self._time
        if time.mortal and time.now_us < self.away_until_us:
            time.fault("finds no database")
            time.count(f"{_caller()} finds no database")
            raise HerdUnavailable("The database does not answer; try again.")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        self._reach()
        with super().read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction of the herder's, judged once it is committed."""
        rules = self.rules
        if rules is None:
            with super().write() as connection:
                yield connection
            return
        self._reach()
        before = self.raw.total_changes
        cut = False
        try:
            with super().write() as connection:
                rules.inside = True
                try:
                    yield connection
                    if self.raw.total_changes != before:
                        self._before_commit()
                        cut = self._is_cut()
                finally:
                    rules.inside = False
        except HerdUnavailable as error:
            if isinstance(error.__cause__, OperationalError):
                # Others go on before the step is taken again.
                self._time.point("after it was undone", "a process dies before a commit")
            raise
        if self.raw.total_changes != before:
            rules.committed()
            if cut:
                raise CommitUnknown("The connection to the database was lost; try again.")
            self._time.point("after a commit", "a process dies after a commit")

    def _is_cut(self) -> bool:
        """Whether the connection is lost after the commit.

        Raises:
            CommitUnknown: it is lost before, which looks the same.
        """
        time = self._time
        if not time.mortal or not time.chance(time.weather.cut_commit):
            return False
        caller = _caller()
        time.fault(f"loses the connection amid the commit of {caller}")
        time.count(f"the commit of {caller} is cut off")
        if time.rng.random() < 0.8:
            self.go_away()
        if time.rng.random() < 0.5:
            time.count("a commit that was cut off was made")
            return True
        time.count("a commit that was cut off was not made")
        raise CommitUnknown("The connection to the database was lost; try again.")

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


def _caller() -> str:
    """On whose behalf the database is asked."""
    found = SOMEBODY
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_qualname
        if name == "Clockwork._take":
            break  # whose step this one is taken in the middle of
        found = CALLS.get(name, found)
        frame = frame.f_back
    return found


def driver_of(database: Database) -> sqlite3.Connection:
    """The one connection in which a database in memory lives."""
    with database.read() as connection:
        driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


@cache
def _template() -> sqlite3.Connection:
    """A database that was made as `herd init` makes it, once a process: the copy is quick."""
    database = Database("sqlite://", any_version=True)
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
