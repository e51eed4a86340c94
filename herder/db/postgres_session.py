"""Sets up connections to PostgreSQL: how long they may wait, and hold others up.

Between us and the server there may be a pooler, PgBouncer as a rule, which gives a transaction
whichever of its connections is free. What is set for a session then reaches others' transactions
and not ours, and a statement that was prepared stays behind. A pooler shows itself: it invents the
process id that a client is told at the start, and the server's own is another. Behind one, each
transaction says its limits itself, and no statement is prepared.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event

from herder.db.psycopg_parts import text_dumper

# Of two who wait for each other the server undoes one, once it has looked, `deadlock_timeout` after
# it began to wait. Were they to give up as soon, both would be undone.
# What was committed survives a power cut: a server may be told otherwise, and is not believed.
# Behind a pooler this sets nothing: what is local ends with this statement.
_SESSION = """
SELECT pooled.yes, set_config(
        'lock_timeout',
        least(greatest(%(patience_ms)s, 2 * deadlock.setting::int), 2 * %(patience_ms)s)::text,
        pooled.yes
    ),
    set_config('idle_in_transaction_session_timeout', %(patience_ms)s::text, pooled.yes),
    set_config(
        'synchronous_commit',
        replace(current_setting('synchronous_commit'), 'off', 'on'),
        pooled.yes
    )
FROM pg_settings AS deadlock, (SELECT pg_backend_pid() <> %(told_pid)s AS yes) AS pooled
WHERE deadlock.name = 'deadlock_timeout'
"""

_TRANSACTION = """
SELECT set_config('lock_timeout', '{lock}', true),
    set_config('idle_in_transaction_session_timeout', '{idle}', true),
    set_config(
        'synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true
    )
"""

_LIMITS = "limits of each transaction"


def prepare_sessions(engine: Engine, patience_s: int) -> None:
    """Have each connection of an engine wait, and hold others up, for no longer than it may.

    Args:
        engine: on PostgreSQL.
        patience_s: seconds that a transaction may do nothing, and at least wait for a lock.
    """

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, record: Any) -> None:
        connection.adapters.register_dumper(str, text_dumper())
        connection.autocommit = True  # else a rollback would undo the settings
        given = {"patience_ms": patience_s * 1000, "told_pid": connection.info.backend_pid}
        pooled, lock, idle, _ = connection.execute(_SESSION, given).fetchone()
        connection.autocommit = False
        if pooled:
            connection.prepare_threshold = None
            record.info[_LIMITS] = _TRANSACTION.format(lock=lock, idle=idle)

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        limits = connection.info.get(_LIMITS)
        if limits is not None:  # a round trip more, behind a pooler alone
            connection.exec_driver_sql(limits)
