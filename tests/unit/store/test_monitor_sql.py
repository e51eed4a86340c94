"""What is read of events."""

from __future__ import annotations

from herder.store import monitor as monitor_sql


def test_orders_come_in_the_order_in_which_each_was_first_sent_out(house):
    house.fund(1000)
    first = house.submit(fee=40)
    house.worker().claim(house.dispatched())
    house.lapse(house.settings.lease_s + 1)
    second = house.submit(fee=200)
    house.worker(slots=2)
    house.dispatch()
    with house.database.read() as connection:
        assert monitor_sql.dispatched(connection, 10) == [first.id, second.id]
        assert monitor_sql.dispatched(connection, 1) == [first.id]
