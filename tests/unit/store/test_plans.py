"""No step of a herd reads all that it ever did: every statement finds its rows by an index.

What a plan is made without is the parameters' values: a plan that is kept must do for any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event

from herder.accounts.usage import read_usage
from herder.domain.periods import day_of
from herder.errors import OrderNotWaiting, RefundRefused
from herder.gateway.telemetry.monitor import Monitor
from herder.market.policy import set_policy
from herder.market.queue_estimate import QueueSampler
from herder.market.quotes import Quotes
from herder.messages.inbox import InboxChanges, read_inbox
from herder.orders.retention import OldTexts
from herder.store import claims as claim_sql
from herder.store import messages as message_sql
from herder.store import orders as order_sql
from herder.webhooks.schedule import Reply
from ledger import audit
from tests.support.house import FakeReceiver

GROWS = {
    "orders", "order_text", "event", "account", "ledger_transfer", "ledger_account", "grants",
    "webhook_endpoint", "webhook_delivery", "message", "message_key",
}  # fmt: skip
"""Tables with a row for each order or client; the others stay small."""

PARTIAL = {
    "ix_orders_out", "ix_orders_book", "ix_orders_start_by",
    "ix_webhook_delivery_due", "ix_webhook_delivery_waiting",
}  # fmt: skip
"""Indexes that hold nothing of what has ended: they may be read from end to end."""


ONCE_A_MINUTE = {audit._SUMS}
"""What reads every account, for the monitor, which rests a hundred times as long as it took."""


@contextmanager
def listening() -> Iterator[set[str]]:
    """Collects the statements that are executed meanwhile."""
    heard: set[str] = set()

    def hear(_connection, _cursor, statement, *_rest):
        heard.add(statement)

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


def all_steps(house, monkeypatch):
    """What clients, workers and herders do all day."""
    quotes = Quotes(house.database, house.key, clock_us=house.clock)
    surveyor = QueueSampler(house.database, clock_us=house.clock)
    receiver = FakeReceiver()
    deliverer = house.new_deliverer(receiver, retries_s=(), keep_s=1)
    webhook = house.webhooks.create("default", "https://ada.example/", include_text=True)[0].id
    gone = house.webhooks.create("default", "https://bob.example/")[0].id
    house.webhooks.create("default", "https://cat.example/", types=["message.created"])
    worker = house.worker(slots=2)
    first = house.submit(fee=20, idempotency_key="key", start_by_us=house.now_us + 10**9)
    second = house.submit()
    (job, _) = house.dispatch()
    worker.claim(job)
    third = house.submit(fee=30)
    fourth = house.submit(fee=40)
    house.intake.rebid(third.id, 50)
    with pytest.raises(OrderNotWaiting):
        house.intake.rebid(first.id, 60)
    quotes.quote(house.call())
    quotes.info()
    house.cancellation.cancel(fourth.id)
    worker.beat()
    worker.finish(job)
    house.dispatch()
    house.cancellation.cancel(second.id)
    house.pass_s(2, worker)
    for step in (house.herd.sweep, house.settlement.lapse, house.cancellation.sweep):
        step()
    house.dispatcher.sweep()
    set_policy(house.database, aging_s=5)
    surveyor.step()
    grant = house.grants.create("default", 5, "day")
    ended = day_of(house.now_us)  # its month may be over tomorrow
    house.now_us += 86_400_000_000
    house.grants.post_due()
    house.grants.list("default", after=grant.id)
    house.grants.end(grant.id)
    for by in ("account", "model"):
        for account in (None, "default"):
            asked = {"by": by, "account": account, "first": ended.isoformat()}
            (row,) = read_usage(house.database, house.now_us, **asked).rows
            assert row.completed == 1
    monitor = Monitor(house.database, house.accounts.totals, clock_us=house.clock)
    monitor.look()
    monitor._cursor.missed[1] = 0.0
    house.submit()
    assert len(monitor.look().happened) == 2
    monkeypatch.setattr(claim_sql, "LOOKED_AT", 1)  # as if there were a backlog
    receiver.replies = [Reply(200), Reply(500), Reply(410)]
    while deliverer.step(0):
        pass
    for one in (webhook, gone):
        house.webhooks.enable(one)
        house.webhooks.rotate(one)
        house.webhooks.deliveries.page(one, state="dead")
        house.webhooks.deliveries.replay(one, since_us=1, until_us=2)
        house.webhooks.deliveries.replay(one)
        house.webhooks.deliveries.test(one)
    house.webhooks.disable(gone)
    assert deliverer.step(0)
    house.now_us += 10_000_000
    assert not deliverer.forget()
    assert not OldTexts(house.database, 1, clock_us=house.clock).step(10)
    house.webhooks.delete(webhook)
    with house.database.read() as connection:
        order_sql.get_answer(connection, first.id)
    set_aside(house)
    send_messages(house, worker)


def set_aside(house):
    """What becomes of orders that cannot end, and what operators do about them."""
    kept, gone = house.submit(), house.submit(start_by_us=house.now_us + 1)
    for order in (kept, gone):
        with house.database.write() as connection:
            house.books.post(connection, order.hold_id, 5)
    house.cancellation.cancel(kept.id)
    house.now_us += 2
    house.cancellation.sweep()
    assert [one.ends_as for one in house.aside.list()].count("expired") == 1
    assert house.aside.count() == 2
    with pytest.raises(RefundRefused):
        house.aside.retry(kept.id)
    for order in (kept, gone):
        house.aside.give_back(order.id)


def send_messages(house, worker):
    """What those do who send messages."""
    house.accounts.create("ada")
    for tags in ({"Action": "Info"}, {"Action": "Balance"}):
        house.send(key=tags["Action"], **tags)
    house.send(Action="Transfer", Recipient="ada", Quantity="5")
    house.ask(5)
    house.ask(500, key="k")
    worker.finish(house.dispatched())
    read_inbox(house.database, "default", 0, 10)
    InboxChanges(house.database).changed(["default", "ada"])
    with house.database.write() as connection:
        message_sql.trim(connection, "default", 1, 100)
        for before_us, name in ((1, None), (None, "ada"), (1, "ada")):
            found = message_sql.forgettable(connection, before_us=before_us, name=name, limit=10)
        message_sql.delete_messages(connection, [*found, ("ada", 1)])


def sqlite_readings(connection, statement):
    """(table, index or None) that a plan reads from end to end."""
    nothing = (None,) * statement.count("?")
    for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", nothing):
        if found := re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", row.detail):
            yield found[1], found[2]


def postgres_readings(connection, statement):
    """Likewise, where it may not read a small table whole, be it to join it."""
    numbers: dict[str, int] = {}

    def numbered(found):
        name = found[1] or f"at {found.start()}"
        return f"${numbers.setdefault(name, len(numbers) + 1)}"

    generic = re.sub(r"%(?:\((\w+)\))?s", numbered, statement)
    # As it was executed: SQLAlchemy names the types of its parameters, the ledger need not.
    for way in ("seqscan", "mergejoin", "hashjoin", "material"):
        connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE one AS {generic}")
    nothing = f"({', '.join(['NULL'] * len(numbers))})" if numbers else ""
    ((plan,),) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE one{nothing}").all()
    connection.exec_driver_sql("DEALLOCATE one")
    nodes = [plan[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        scans = node["Node Type"].endswith("Scan") and node["Node Type"] != "Bitmap Heap Scan"
        if scans and "Relation Name" in node and "Index Cond" not in node:
            yield node["Relation Name"], node.get("Index Name")


def test_no_step_reads_all_orders_or_clients(house, monkeypatch):
    with listening() as heard:
        all_steps(house, monkeypatch)
    told = [text for text in sorted(heard) if re.match(r"\s*(SELECT|UPDATE|DELETE|WITH)", text)]
    told = [text for text in told if GROWS & set(re.findall(r"\w+", text))]
    assert len(told) > 25
    assert set(told) >= ONCE_A_MINUTE
    told = [text for text in told if text not in ONCE_A_MINUTE]
    with house.database.write() as connection:
        readings = sqlite_readings if connection.dialect.name == "sqlite" else postgres_readings
        for statement in told:
            for table, index in readings(connection, statement):
                assert table not in GROWS or index in PARTIAL, f"{table} by {index}: {statement}"
