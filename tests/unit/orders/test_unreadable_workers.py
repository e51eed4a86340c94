"""What the database says of one worker cannot be read: its orders settle, and others work on."""

from __future__ import annotations

import pytest
from sqlalchemy import cast, text, update
from sqlalchemy.types import Text

from herder.db.tables import worker
from herder.herd.trusted_keys import TrustedKeys


def spoil_key(house, spoilt, jwk):
    """Put something else in the place of a worker's key."""
    with house.database.write() as connection:
        if connection.dialect.name != "sqlite" and jwk.startswith("{not"):
            pytest.skip("PostgreSQL stores no such JSON")
        to = ":jwk" if connection.dialect.name == "sqlite" else "CAST(:jwk AS json)"
        statement = text(f"UPDATE key SET jwk = {to} WHERE kid = :kid")
        connection.execute(statement, {"jwk": jwk, "kid": spoilt.key.kid})


def spoil_slots(house, spoilt):
    with house.database.write() as connection:
        if connection.dialect.name != "sqlite":
            pytest.skip("PostgreSQL keeps only numbers there")
        statement = update(worker).where(worker.c.instance == spoilt.instance)
        connection.execute(statement.values(slots=cast("four", Text)))


@pytest.mark.parametrize("jwk", ["{}", "[1]", "null", '{"kty": 5}', "{not json"])
def test_a_key_that_cannot_be_read_sets_no_order_aside(house, jwk):
    for _ in range(2):
        house.worker()
        house.submit()
    jobs = house.dispatch()
    spoilt, other = (house.sent_to(one) for one in jobs)
    assert spoilt is not other
    spoilt.claim(jobs[0])
    other.claim(jobs[1])
    spoil_key(house, spoilt, jwk)
    # Both signatures were checked a moment ago, before the row was spoilt.
    answers = [spoilt.answer(jobs[0]), other.answer(jobs[1])]
    settled = house.settlement.settle(answers)
    assert set(settled.ended) == {one.order for one in jobs}
    assert [house.order(one.order).state for one in jobs] == ["completed", "completed"]
    assert [house.order(one.order).worker for one in jobs] == [spoilt.name, other.name]
    assert house.aside.count() == 0
    house.check()


def test_a_key_that_cannot_be_read_opens_nothing_and_leaves_the_others(house):
    spoilt, other = house.worker(), house.worker()
    spoil_key(house, spoilt, "{}")
    keys = TrustedKeys(house.database).of("herder", "worker")
    assert (spoilt.key.kid in keys, other.key.kid in keys) == (False, True)
    assert house.key.kid in keys
    assert not other.beat().control


def test_a_worker_whose_numbers_are_words_takes_nothing_and_leaves_the_others(house):
    workers = [house.worker(), house.worker()]
    order = house.submit()
    job = house.dispatched()
    spoilt = house.sent_to(job)
    (other,) = (one for one in workers if one is not spoilt)
    spoilt.claim(job)
    spoil_slots(house, spoilt)
    assert spoilt.finish(job).ended == [order.id]
    orders = [house.submit() for _ in range(2)]
    assert [one.order for one in house.dispatch()] == [orders[0].id], "one good slot"
    assert not other.beat().control
    house.herd.sweep()
