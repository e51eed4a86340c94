"""What can be neither done nor set aside moves out of the way of what comes behind it."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, update

from herder.db.tables import grants, webhook_delivery, webhook_endpoint
from herder.db.tables import orders as orders_table
from herder.db.tables import set_aside as aside_table
from herder.duties.turns import MAX_REMEMBERED, MAX_WAIT_US, Turns
from herder.market.policy import set_policy
from herder.store import claims as claim_sql
from herder.store import deliveries as delivery_sql
from herder.webhooks import events
from tests.support.house import FakePublisher, FakeReceiver

NOBODY = "00000000-0000-4000-8000-000000000000"


def stick(house, order):
    """Let an order neither end, since its hold is gone, nor be set aside, since it is already."""
    with house.database.write() as connection:
        connection.execute(
            update(orders_table).where(orders_table.c.id == order.id).values(hold_id=NOBODY)
        )
        row = {"order_id": order.id, "at_us": 0, "was": "queued", "reason": "planted"}
        connection.execute(insert(aside_table), row)


def mend(house, orders):
    """Give orders back what they need to end."""
    with house.database.write() as connection:
        for order in orders:
            statement = update(orders_table).where(orders_table.c.id == order.id)
            connection.execute(statement.values(hold_id=order.hold_id))


def states(house, orders):
    return [str(house.order(order.id).state) for order in orders]


def walk(step, limit):
    """Do batches as a runner does, until there is no more; how many that were."""
    steps = 1
    while step(limit).more:
        steps += 1
        assert steps < 100, "it comes to an end"
    return steps


def test_orders_that_cannot_be_ended_keep_none_behind_them_from_lapsing(make_house):
    house = make_house(max_attempts=1)
    house.fund(1000)
    orders = [house.submit() for _ in range(7)]
    worker = house.worker(slots=7)
    for job in house.dispatch():
        worker.claim(job)
    for order in orders[:4]:
        stick(house, order)
    house.pass_s(house.settings.lease_s + 1)
    walk(house.settlement.lapse, 2)
    assert states(house, orders) == ["running"] * 4 + ["failed"] * 3
    for _ in range(3):  # second by second, those that stay due are found, and end nothing
        walk(house.settlement.lapse, 2)
    mend(house, orders[:4])
    house.now_us += 2 * MAX_WAIT_US
    walk(house.settlement.lapse, 2)
    assert states(house, orders) == ["failed"] * 7


@pytest.mark.parametrize("running", [False, True], ids=["late", "overdue"])
def test_orders_that_cannot_be_ended_keep_none_behind_them_from_expiring(house, running):
    worker = house.worker(slots=7)
    given = {"run_limit_s": 5} if running else {"start_by_us": house.now_us + 10**6}
    orders = [house.submit(**given) for _ in range(7)]
    if running:
        for job in house.dispatch():
            worker.claim(job)
    for order in orders[:4]:
        stick(house, order)
    house.pass_s(3 * house.settings.lease_s if running else 2, *[worker] * running)
    walk(house.cancellation.sweep, 2)
    assert states(house, orders[4:]) == ["expired"] * 3
    assert "expired" not in states(house, orders[:4])
    mend(house, orders[:4])


def test_messages_that_cannot_be_made_keep_none_behind_them_in_the_outbox(house, monkeypatch):
    house.worker(slots=7)
    orders = [house.submit() for _ in range(7)]
    house.publisher.away = ConnectionError("no broker")
    house.dispatch()
    for order in orders[:4]:
        stick(house, order)
    publisher = FakePublisher()
    survivor = house.new_dispatcher(publisher)
    real = survivor._task

    def make(order, request):
        if order.id in [one.id for one in orders[:4]]:
            raise ValueError("planted")
        return real(order, request)

    monkeypatch.setattr(survivor, "_task", make)
    house.now_us += 6_000_000
    walk(survivor.sweep, 2)
    assert [job.order for job in house.jobs(publisher.tokens)] == [one.id for one in orders[4:]]
    mend(house, orders[:4])


def test_a_broker_that_is_away_is_asked_for_the_same_messages_when_it_is_back(house):
    house.worker(slots=5)
    orders = [house.submit() for _ in range(5)]
    house.publisher.away = ConnectionError("no broker")
    house.dispatch()
    publisher = FakePublisher()
    publisher.away = ConnectionError("no broker")
    survivor = house.new_dispatcher(publisher)
    house.now_us += 6_000_000
    for _ in range(4):
        assert walk(survivor.sweep, 2) == 1
    publisher.away = None
    walk(survivor.sweep, 2)
    assert [job.order for job in house.jobs(publisher.tokens)] == [one.id for one in orders]


def test_grants_that_can_be_neither_posted_nor_set_aside_keep_none_behind_them(house, monkeypatch):
    from herder.accounts import grants as grants_module

    made = [house.grants.create("default", 5, "day") for _ in range(5)]
    bad = sorted(one.id for one in made)[:3]
    with house.database.write() as connection:
        wrong = update(grants).where(grants.c.id.in_(bad))
        connection.execute(wrong.values(every="fortnight"))
    house.now_us += 86_400_000_000

    def refuse(_connection, grant_id, why):
        raise KeyError(grant_id)

    monkeypatch.setattr(grants_module.grant_sql, "set_aside", refuse)
    assert sum(house.grants.post_due(2) for _ in range(6)) == 2


def test_an_order_that_cannot_be_ranked_leaves_its_book_to_the_others(house):
    orders = [house.submit() for _ in range(3)]
    with house.database.write() as connection:
        statement = update(orders_table).where(orders_table.c.id == orders[1].id)
        connection.execute(statement.values(needed=0))
    assert set_policy(house.database, aging_s=60) == 2
    house.worker(slots=3)
    assert {job.order for job in house.dispatch()} == {orders[0].id, orders[2].id}
    assert str(house.order(orders[1].id).state) == "failed", "it has no multiplier"
    assert house.model().last_multiplier == 1


def test_rates_that_are_none_stop_no_dispatch(house):
    orders = [house.submit() for _ in range(2)]
    with house.database.write() as connection:
        statement = update(orders_table).where(orders_table.c.id == orders[0].id)
        connection.execute(statement.values(prompt_fee=0))
    worker = house.worker(slots=2)
    jobs = house.dispatch()
    assert [job.order for job in jobs] == [one.id for one in orders]
    for job in jobs:
        worker.finish(job, generated=10)
    charged = [house.order(one.id).charged for one in orders]
    assert charged == [1, 13], "by the lowest rates that there are"


def test_endpoints_of_another_key_hide_none_of_ones_own(house):
    """A herder whose key is gone left more endpoints than a claim looks at."""
    left = claim_sql.LOOKED_AT + 5
    made, _ = house.webhooks.create("default", "https://ada.example/")
    mine, _ = house.webhooks.create("default", "https://bob.example/")
    with house.database.write() as connection:
        (row,) = connection.execute(
            webhook_endpoint.select().where(webhook_endpoint.c.id == made.id)
        ).mappings()
        foreign = [f"we_{number:016x}" for number in range(left)]
        rows = [{**row, "id": one, "sealed_by": "another"} for one in foreign]
        connection.execute(insert(webhook_endpoint), rows)
        delivery_sql.add_deliveries(
            connection,
            [events._row(one, "order.failed", {}, "subject", house.now_us) for one in foreign],
        )
        connection.execute(update(webhook_delivery).values(due_us=house.now_us - 5))
        own = events._row(mine.id, "order.failed", {"order": {}}, "subject", house.now_us)
        delivery_sql.add_deliveries(connection, [own])
    receiver = FakeReceiver()
    deliverer = house.new_deliverer(receiver)
    deliverer.step(0)
    deliverer.step(0)
    (told,) = house.webhooks.deliveries.page(mine.id).items
    assert told.state != "pending", "it was looked at"


# The walk itself


def test_what_was_tried_in_vain_is_tried_less_and_less_often():
    now_us = 0
    turns = Turns(0, lambda row: row, lambda: now_us)
    tried = []
    for second in range(400):
        now_us = second * 1_000_000
        due = turns.due([7])
        turns.failed(due)
        turns.turn([7], 10)
        tried += [second] * len(due)
    assert tried[:9] == [0, 1, 2, 4, 8, 16, 32, 64, 124], "doubling, up to a minute"
    assert turns.due([8]) == [8]
    now_us = 0
    assert turns.due([7]) == [7], "a clock that was set back keeps nothing waiting"
    turns.turn([], 10)
    turns.turn([], 10)
    now_us = 124_000_001
    assert turns.due([7]) == [7], "it was done, and is forgotten"


def test_it_remembers_so_many_and_tries_the_others_each_time():
    turns = Turns(0, lambda row: row, lambda: 0)
    rows = list(range(MAX_REMEMBERED + 3))
    for _ in range(3):
        turns.failed(turns.due(rows))
    assert turns.due(rows) == rows[-3:]
