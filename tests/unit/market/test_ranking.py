"""Books that are ranked anew: in pieces, and without serving a worse order before a better one."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, event, select

from herder.db.tables import orders
from herder.domain.pricing import rank
from herder.errors import HerdUnavailable
from herder.market import policy, ranking
from herder.market.ranking import Ranker
from herder.orders import intake
from herder.store import models as model_sql

AGING_S = 60


def change(house, aging_s=AGING_S):
    """The change alone, as if the command that made it had been killed at once."""
    with house.database.write() as connection:
        model_sql.lock_policy(connection)
        model_sql.set_policy(connection, {"aging_s": aging_s})
        model_sql.ask_for_ranking(connection)


def submit(house, *fees):
    """Orders a second apart: by waiting alone, the first ones come first."""
    made = []
    for fee in fees:
        made.append(house.submit(fee=fee))
        house.now_us += 1_000_000
    return made


def ranked_for(house, aging_s):
    """Whether the open orders all have ranks that were worked out with it."""
    with house.database.read() as connection:
        rows = connection.execute(select(orders).where(orders.c.ended_us.is_(None))).all()
    assert rows
    return all(
        row.rank == rank(row.fee, row.needed, aging_s=aging_s, submitted_us=row.submitted_us)
        for row in rows
    )


def finish(house, limit=500):
    ranker = Ranker(house.database)
    while ranker.step(limit):
        pass
    return ranker.ranked


def served(house):
    """Every order that waits, in the order in which it is served."""
    worker = house.worker()
    found = []
    while jobs := house.dispatch():
        for job in jobs:
            worker.finish(job)
            found.append(job.order)
    return found


@pytest.fixture
def pieces(monkeypatch):
    """Orders that each transaction ranked; pieces are small."""
    step = Ranker.step
    monkeypatch.setattr(Ranker, "step", lambda self, limit=3: step(self, limit))
    found = [0]

    def hear(_connection, _cursor, statement, parameters, _context, many):
        if statement.startswith("UPDATE orders SET rank"):
            found[-1] += len(parameters) if many else 1

    def committed(_connection):
        if found[-1]:
            found.append(0)

    event.listen(Engine, "before_cursor_execute", hear)
    event.listen(Engine, "commit", committed)
    yield found
    event.remove(Engine, "before_cursor_execute", hear)
    event.remove(Engine, "commit", committed)


def test_a_book_is_ranked_in_pieces_between_which_others_write(house, pieces, monkeypatch):
    submit(house, *range(20, 30))
    between = []
    monkeypatch.setattr(policy.time, "sleep", lambda _s: between.extend(submit(house, 20)))
    assert policy.set_policy(house.database, aging_s=AGING_S) >= 10
    assert sum(pieces) >= 10
    assert max(pieces) <= 3
    assert len(between) >= 4
    assert ranked_for(house, AGING_S)


def test_nothing_is_served_while_a_book_holds_ranks_of_both_kinds(house):
    first, second, third = submit(house, 13, 26, 52)
    change(house)
    ranker = Ranker(house.database)
    assert ranker.step(1)
    worker = house.worker("first", slots=2)
    assert house.dispatch() == []
    # All else goes on.
    fourth = house.submit(fee=13)
    house.intake.rebid(second.id, 39)
    house.cancellation.cancel(third.id)
    house.now_us += 1_000_000
    assert house.dispatch() == []
    while ranker.step(1):
        pass
    assert ranked_for(house, AGING_S)
    worker.leave()
    assert served(house) == [second.id, first.id, fourth.id]


def test_by_the_new_kind_of_rank_whoever_waited_longer_is_served_first(house):
    made = submit(house, 13, 14, 13, 15)
    policy.set_policy(house.database, aging_s=1)
    assert served(house) == [one.id for one in made]


@pytest.mark.parametrize("pieces_before", [0, 1, 2])
def test_what_a_killed_command_left_another_herder_ranks(house, pieces_before):
    submit(house, *range(20, 26))
    change(house)
    killed = Ranker(house.database)
    for _ in range(pieces_before):
        assert killed.step(2)
    assert finish(house, 4) == 6
    assert ranked_for(house, AGING_S)
    assert len(served(house)) == 6
    # It was stopped only, and goes on: that harms nothing.
    while killed.step(2):
        pass
    assert not Ranker(house.database).step()


def test_a_change_while_another_is_worked_off_is_what_counts(house):
    submit(house, *range(20, 26))
    change(house)
    ranker = Ranker(house.database)
    assert ranker.step(4)
    change(house, 5)
    change(house)
    change(house, 7)
    while ranker.step(4):
        pass
    assert ranked_for(house, 7)
    assert len(served(house)) == 6


def test_what_goes_out_or_comes_back_meanwhile_is_ranked_too(house):
    worker = house.worker(slots=2)
    out = submit(house, 30, 29)
    for job in house.dispatch():
        worker.claim(job)
    waits = submit(house, 20, 21)
    change(house)
    ranker = Ranker(house.database)
    assert ranker.step(1)
    house.lapse(house.settings.lease_s + 1)
    while ranker.step(1):
        pass
    assert ranked_for(house, AGING_S)
    assert ranker.ranked == 4
    assert set(served(house)) == {one.id for one in (*out, *waits)}


def test_books_of_other_models_are_served_as_soon_as_they_are_ranked(house):
    submit(house, 20)
    policy.set_rates(house.database, "another", default=True)
    house.submit(fee=20, model="another")
    change(house)
    ranker = Ranker(house.database)
    house.worker(model="another")
    while not house.dispatch("another"):
        assert ranker.step(1)
    with house.database.read() as connection:
        assert [name for name, _ in model_sql.to_rank(connection)] == ["stub"]
    while ranker.step(1):
        pass
    assert ranked_for(house, AGING_S)


def test_a_herd_without_orders_is_ranked_at_once_and_a_new_model_never(house):
    change(house)
    policy.set_rates(house.database, "another")
    assert finish(house) == 0
    with house.database.read() as connection:
        assert model_sql.to_rank(connection) == []


def test_a_herder_goes_on_with_what_a_killed_command_left(house):
    submit(house, 20, 21, 22)
    change(house)
    house.new_service().tick()
    assert ranked_for(house, AGING_S)
    with house.database.read() as connection:
        assert model_sql.to_rank(connection) == []


def test_a_fee_that_was_raised_while_its_rank_was_worked_out_counts(house, monkeypatch):
    made = submit(house, 20, 21)
    change(house)
    ranker = Ranker(house.database)
    left = [one.id for one in made]

    def raised(*args, **asked):
        for order_id in left:
            house.intake.rebid(order_id, 100)
        left.clear()
        return rank(*args, **asked)

    monkeypatch.setattr(ranking, "rank", raised)
    while ranker.step():
        pass
    assert ranked_for(house, AGING_S)
    assert left == []


def test_a_bid_that_is_priced_while_the_policy_changes_is_ranked_by_the_new_one(house, monkeypatch):
    """Its rank is by the old policy, and the new one's ranking must not pass it over."""
    first, _ = submit(house, 20, 21)
    ranks, bid = Ranker._ranks, intake.book_sql.rebid
    worked_out = threading.Event()
    changing = threading.Thread(
        target=policy.set_policy, args=(house.database,), kwargs={"aging_s": AGING_S}
    )

    def ranks_then_tell(*args):
        found = ranks(*args)
        worked_out.set()
        return found

    def bid_later(*args):
        changing.start()
        # It waits for the bid, so that this passes as time goes by; else it was ahead of it.
        worked_out.wait(2)
        bid(*args)

    monkeypatch.setattr(Ranker, "_ranks", ranks_then_tell)
    monkeypatch.setattr(intake.book_sql, "rebid", bid_later)
    house.intake.rebid(first.id, 100)
    changing.join()
    assert ranked_for(house, AGING_S)


def test_a_change_while_ranks_are_worked_out_is_what_counts(house, monkeypatch):
    submit(house, 20, 21)
    change(house)
    ranker = Ranker(house.database)
    changes = iter([5, 60, 7])

    def changed(*args, **asked):
        if (aging_s := next(changes, None)) is not None:
            change(house, aging_s)
        return rank(*args, **asked)

    monkeypatch.setattr(ranking, "rank", changed)
    while ranker.step(1):
        pass
    assert ranked_for(house, 7)


def test_if_the_database_is_lost_half_way_the_herders_rank_the_rest(house, pieces, monkeypatch):
    submit(house, 20, 21, 22, 23, 24)

    def away(_seconds):
        raise HerdUnavailable("The database does not answer.")

    monkeypatch.setattr(policy.time, "sleep", away)
    with pytest.raises(HerdUnavailable, match=r"3 open orders were ranked .* the herders rank"):
        policy.set_policy(house.database, aging_s=AGING_S)
    assert not ranked_for(house, AGING_S)
    house.new_service().tick()
    assert ranked_for(house, AGING_S)
