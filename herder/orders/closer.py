"""Ends orders many at a time, and sets aside alone those whose end is refused.

One order that the ledger refuses, or a webhook or an inbox, must not keep others from ending. So
what is refused for many is tried for halves of them, down to one; and that one is set aside: it
takes part in nothing any more, its fee stays held, and `orders.set_aside` is how an operator goes
on. What is merely out of reach sets nothing aside: it is tried again as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from redis import RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError, StatementError

from herder.db.database import Database
from herder.domain.order import State
from herder.errors import HerdUnavailable, SetupError
from herder.orders.closing import ClosingBatch, ClosingResult
from herder.store import book as book_sql
from herder.store import orders as order_sql
from herder.store import set_aside as set_aside_sql
from herder.store.steps import EndedRow, Subject
from ledger import Ledger, LedgerError, LedgerFault, LedgerMisconfigured
from workers.transport.event_log import EventLog

_log = EventLog("herder.orders.closer")

PIECE = 500
"""Orders that one transaction ends at most, so that no other waits long for the lock, and the
ledger, which refuses more than 1,000, takes them all."""

Row = TypeVar("Row")
Step = Callable[[Connection, Sequence[Row], ClosingBatch, ClosingResult, int], None]
"""Looks at rows within a transaction and plans what becomes of their orders; the last argument is
the time in microseconds since the epoch."""


class Closer:
    """Writes what becomes of orders, each batch in one transaction.

    Args:
        database: where they stand.
        books: the ledger.
        clock_us: the time in microseconds since the epoch.
    """

    def __init__(self, database: Database, books: Ledger, *, clock_us: Callable[[], int]) -> None:
        self._database = database
        self._ledger = books
        self._clock_us = clock_us

    def close(
        self, rows: Sequence[Row], order_of: Callable[[Row], str], step: Step[Row]
    ) -> ClosingResult:
        """Take a step for all rows that can take it; the orders of the others are set aside.

        Args:
            rows: what the step looks at: outcomes, or orders as they were found.
            order_of: the id of a row's order.
            step: plans what becomes of them. It is taken anew for fewer rows where one is refused,
                and once more for a row whose order was set aside: it finds that it has nothing to
                do, or an outcome that was taken in.

        Returns:
            What was done. Where something went out of reach half-way, that is told, and `more` set.

        Raises:
            HerdUnavailable, SQLAlchemyError, OSError: out of reach, and nothing was done.
        """
        done = ClosingResult()
        for start in range(0, len(rows), PIECE):
            try:
                done.add(self._close(rows[start : start + PIECE], order_of, step))
            except Exception as error:
                if start == 0 or is_about_an_order(error):
                    raise
                _log.warning("ends_delayed", reason=type(error).__name__)
                done.more = True
                break
        return done

    def _close(
        self, rows: Sequence[Row], order_of: Callable[[Row], str], step: Step[Row]
    ) -> ClosingResult:
        plan = ClosingBatch()

        def once(connection: Connection) -> ClosingResult:
            nonlocal plan
            plan, done = ClosingBatch(), ClosingResult()
            now_us = self._clock_us()
            step(connection, rows, plan, done, now_us)
            plan.write(connection, self._ledger, now_us)
            done.note(plan)
            return done

        try:
            return self._database.transact(once)
        except Exception as error:
            if not is_about_an_order(error):
                raise
            if len(rows) == 1:
                return self._close_alone(once, order_of(rows[0]), lambda: plan)
            _log.warning("ends_refused", orders=len(rows), reason=type(error).__name__)
        half = len(rows) // 2
        done = self._close(rows[:half], order_of, step)
        try:
            done.add(self._close(rows[half:], order_of, step))
        except Exception as error:
            if is_about_an_order(error):
                raise
            _log.warning("ends_delayed", reason=type(error).__name__)
            done.more = True
        return done

    def _close_alone(
        self,
        once: Callable[[Connection], ClosingResult],
        order_id: str,
        planned: Callable[[], ClosingBatch],
    ) -> ClosingResult:
        """Try once more, alone; set the order aside if that is refused as well."""
        try:
            # What somebody else did at the same moment may have been in the way.
            return self._database.transact(once)
        except Exception as error:
            if not is_about_an_order(error):
                raise
            done = self.set_aside(order_id, planned(), error)
        done.add(self._take_again(once, order_id))
        return done

    def _take_again(
        self, once: Callable[[Connection], ClosingResult], order_id: str
    ) -> ClosingResult:
        try:
            return self._database.transact(once)
        except Exception as error:
            if not is_about_an_order(error):
                raise
            _log.error("order_refused_again", order=order_id, reason=why(error))
            return ClosingResult()

    def set_aside(self, order_id: str, plan: ClosingBatch, error: Exception) -> ClosingResult:
        """Set an order aside whose end was refused, unless it has ended since.

        Args:
            order_id: the order.
            plan: what was to become of it; how it was to end is kept.
            error: why that was refused.
        """
        ended = next((one for one in plan.told if one.id == order_id), None)
        answers = [row for row in plan.answers if row.which == order_id]

        def step(connection: Connection) -> ClosingResult:
            done = ClosingResult()
            order = order_sql.get_orders(connection, [order_id], lock=True).get(order_id)
            if order is None or order.state.ended or order.state is State.SET_ASIDE:
                return done
            now_us = self._clock_us()
            # Whose outcome is kept may forget it; whoever else runs it is to stop.
            instance = None if ended is None else ended.instance
            if instance is None and order.instance is not None and order.current is not None:
                done.stops.append((order.instance, order.current, "void"))
            set_aside_sql.put(
                connection,
                order,
                instance=instance,
                at_us=now_us,
                reason=why(error),
                ending=None if ended is None else EndedRow.of(ended),
            )
            book_sql.write_answers(connection, answers)
            subject = Subject(order_id, order.attempt, order.instance, type(error).__name__)
            order_sql.add_events(connection, "set_aside", now_us, [subject])
            done.models.add(order.model)
            return done

        try:
            done = self._database.transact(step)
        except Exception as another:
            if not is_about_an_order(another):
                raise
            _log.error("order_not_set_aside", order=order_id, reason=why(another))
            return ClosingResult(stuck={order_id})
        _log.error("order_set_aside", order=order_id, reason=why(error))
        return done


def is_about_an_order(error: Exception) -> bool:
    """Return whether an error says that something cannot be done; else that it cannot be done now.

    Out of reach, busy, misconfigured or full is the database, whatever is asked of it.
    """
    cause = error.__cause__
    if isinstance(error, LedgerFault) and isinstance(cause, SQLAlchemyError):
        return is_about_an_order(cause)
    if isinstance(error, LedgerError):
        return not error.retryable and not isinstance(error, LedgerMisconfigured)
    if isinstance(error, SQLAlchemyError):
        # A value that cannot be bound is a StatementError of no database.
        return isinstance(error, IntegrityError | DataError) or type(error) is StatementError
    outages = (HerdUnavailable, SetupError, RedisError, OSError, MemoryError)
    return not isinstance(error, outages)


def why(error: Exception) -> str:
    """Return the reason for which an order could not be ended, for operators, without its text."""
    if isinstance(error, LedgerError):
        return f"The ledger refuses its end: {error}"
    if isinstance(error, SQLAlchemyError):
        return f"The database refuses its end ({type(error).__name__})."
    return f"Its end cannot be worked out ({type(error).__name__})."
