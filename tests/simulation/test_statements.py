"""What a herder asks of its database does not grow with the orders that have ended."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.simulation.run import run_seed
from tests.simulation.world import World

GROWING = ("orders", "order_text", "event", "ledger_transfer", "webhook_delivery")
_NO_PLAN = ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")
PARTIAL = {f"SCAN orders USING INDEX ix_orders_{name}" for name in ("out", "book", "start_by")}
"""Indexes of the orders that wait or are out, and of no others."""


def plan_of(cursor: Any, statement: str, values: Any) -> list[str]:
    return [row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def test_no_statement_of_a_herder_reads_all_orders(clean_environment):
    plans: dict[str, list[str]] = {}
    worlds: list[World] = []

    def explain(_conn, cursor, statement, values, _context, many):
        at_work = worlds and worlds[0].database.rules is not None
        if at_work and statement not in plans and not statement.startswith(_NO_PLAN):
            plans[statement] = plan_of(cursor, statement, values[0] if many else values)

    event.listen(Engine, "after_cursor_execute", explain)
    try:
        report = run_seed(3, 60, prepare=worlds.append)
    finally:
        event.remove(Engine, "after_cursor_execute", explain)
    assert report.rule is None
    assert len(plans) > 40
    for statement, plan in plans.items():
        if "FROM order_text JOIN orders" in statement:
            continue  # a purge looks at whatever it is to delete
        for step in plan:
            whole = step.startswith(tuple(f"SCAN {table}" for table in GROWING))
            assert not whole or step in PARTIAL, f"{step}: {statement}"
