"""Eight processes on one database do what clients, herders and workers do, all at once; what each
was told has to fit what the others were told, and what stands in the database in the end."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

import tests.unit.orders.history_rules as rules
from herder.db.tables import event, orders
from herder.store import accounts as account_sql
from herder.store import orders as order_sql
from tests.support.house import House
from tests.unit.orders.histories import (
    FUNDS,
    LIMITED,
    MAX_OPEN,
    SETTINGS,
    Did,
    Game,
    Player,
    play,
    read_history,
)
from tests.unit.orders.history_rules import History, broken
from workers.wire import PrivateKey

PROCESSES = 8
STEPS = 60
SEED = random.randrange(2**32)


@pytest.fixture
def game(postgres_server, tmp_path, clean_environment) -> Iterator[Game]:
    """A herd with money in it and no worker yet."""
    name = postgres_server.new_database(postgres_server.migrated)
    house = House(tmp_path, database_url=postgres_server.url(name), **SETTINGS)
    for account, amount in FUNDS.items():
        house.fund(amount, account)
    house.accounts.set_limits(LIMITED, max_open_orders=MAX_OPEN, tokens_per_minute=None)
    shared = PrivateKey.generate().to_jwk()
    began_ns, began_us = time.monotonic_ns(), house.now_us
    yield Game(str(tmp_path), postgres_server.url(name), SEED, began_ns, began_us, shared)
    house.check()
    house.close()
    postgres_server.drop(name)


def play_all(game: Game) -> History:
    """Let them play, and one more finish what they left."""
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(PROCESSES)
    runners = [
        spawn.Process(target=play, args=(game, number, STEPS, start)) for number in range(PROCESSES)
    ]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join(300)
    assert [runner.exitcode for runner in runners] == [0] * PROCESSES
    last = Player(game, PROCESSES)
    last.arrive()
    last.finish()
    done = [did for number in range(PROCESSES) for did in read_history(game, number)]
    with last.database.read() as connection:
        found = [order_sql.to_order(row) for row in connection.execute(select(orders))]
        events: dict[str, list[tuple[str, int]]] = {}
        for row in connection.execute(select(event).order_by(event.c.seq)):
            events.setdefault(row.order_id, []).append((row.kind, row.at_us))
        for account in FUNDS:
            standing = account_sql.standing(connection, account)
            assert standing is not None
            assert standing.open_orders == 0
        assert last.books.audit(connection).held == 0
        owners = connection.exec_driver_sql("SELECT count(*) FROM key WHERE owner = 'shared'")
        assert owners.scalar_one() == 1
    last.close()
    return History(game, [*done, *last.history], {order.id: order for order in found}, events)


def test_what_happens_at_once_is_as_if_it_happened_one_after_the_other(game):
    history = play_all(game)
    print(f"seed {SEED}", Counter((did.call, did.error) for did in history.done))
    print(Counter(order.state.value for order in history.orders.values()))
    assert broken(history) == {}
    require_enough(history)
    for doctor in DOCTORS:
        doctored, rule = doctor(history)
        assert list(rule(doctored)), f"{doctor.__name__} was not noticed"


def require_enough(history: History) -> None:
    """What happened at once would have told, had anything been wrong."""
    states = Counter(order.state.value for order in history.orders.values())
    assert states["completed"] > 5
    assert states["cancelled"] > 5
    errors = Counter(did.error for did in history.done)
    assert errors["OrderNotWaiting"] + errors["RebidTooLow"] > 0
    assert errors["RateLimited"] > 0
    at_once = most = 0
    spans = [(did.began, 1) for did in history.done] + [(did.ended, -1) for did in history.done]
    for _, change in sorted(spans):
        at_once += change
        most = max(most, at_once)
    assert most >= PROCESSES // 2
    assert sum(bool(list(history.waits(one))) for one in history.orders) > 20


# The rules notice when a history is not so


def first(history: History, call: str, fits: Callable[[Did], Any] = lambda _: True) -> int:
    return next(
        place
        for place, did in enumerate(history.done)
        if did.call == call and did.error is None and fits(did)
    )


def changed(history: History, place: int, **what: Any) -> History:
    done = list(history.done)
    done[place] = replace(done[place], **what)
    return replace(history, done=done)


def a_raw_error(history):
    return changed(history, 5, error="raw IntegrityError('duplicate key')"), rules.no_raw_error


def a_key_with_two_orders(history):
    place = first(history, "submit", lambda did: did.asked["key"])
    did = history.done[place]
    other = replace(did, got={"id": next(one for one in history.orders if one != did.got["id"])})
    return replace(history, done=[*history.done, other]), rules.a_key_is_one_order


def an_order_that_two_calls_ended(history):
    place = first(history, "settle", lambda did: did.got)
    return replace(history, done=[*history.done, history.done[place]]), rules.an_order_ends_once


def an_order_whose_end_changed(history):
    one = next(iter(history.orders))
    order = history.orders[one]
    other = next(kind for kind in ("completed", "cancelled") if kind != order.state.value)
    events = {**history.events, one: [*history.events[one], (other, history.events[one][-1][1])]}
    return replace(history, events=events), rules.an_order_ends_once


def a_bid_that_was_lost(history):
    place = first(history, "rebid")
    one = history.done[place].asked["order"]
    order = history.orders[one]
    forgetful = {**history.orders, one: replace(order, fee=order.fee - 1)}
    return replace(history, orders=forgetful), rules.acknowledged_bids_stay


def a_bid_for_what_had_ended(history):
    bids = Counter((d.asked["order"], d.got["holds"]) for d in history.calls("rebid"))
    once = lambda did: bids[did.asked["order"], did.got["holds"]] == 1  # noqa: E731
    place = first(history, "rebid", once)
    late = max(did.ended for did in history.done) + 10
    return changed(history, place, began=late, ended=late + 1), rules.what_ended_is_over


def an_attempt_that_went_out_twice(history):
    place = first(history, "dispatch", lambda did: did.got)
    return replace(
        history, done=[*history.done, history.done[place]]
    ), rules.an_attempt_goes_out_once


def a_better_order_that_was_left_behind(history):
    """Every dispatch took what ranked last."""
    done = [
        replace(did, got=[[one, number, 0] for one, number, _ in did.got])
        if did.call == "dispatch" and did.got
        else did
        for did in history.done
    ]
    return replace(history, done=done), rules.the_best_goes_first


def a_limit_that_was_passed(history):
    return replace(history, most_open=1), rules.limits_hold


def a_refusal_for_nothing(history):
    place = next(p for p, did in enumerate(history.done) if did.error == "RateLimited")
    early = history.game.began_ns
    return changed(history, place, began=early, ended=early + 1), rules.limits_hold


def a_poor_account_that_was_rich(history):
    asked = {"account": "ada", "key": None, "fee": 5, "need": 5, "start_by_us": None}
    began = history.game.began_ns
    refused = Did(0, "submit", asked, began, began + 1, error="InsufficientBalance")
    return replace(history, done=[*history.done, refused]), rules.nobody_is_refused_who_can_pay


def a_charge_that_is_off_by_one(history):
    one, order = next(
        (one, order) for one, order in history.orders.items() if order.state == "completed"
    )
    wrong = {**history.orders, one: replace(order, charged=order.charged - 1)}
    return replace(history, orders=wrong), rules.charges_are_right


DOCTORS = (
    a_raw_error,
    a_key_with_two_orders,
    an_order_that_two_calls_ended,
    an_order_whose_end_changed,
    a_bid_that_was_lost,
    a_bid_for_what_had_ended,
    an_attempt_that_went_out_twice,
    a_better_order_that_was_left_behind,
    a_limit_that_was_passed,
    a_refusal_for_nothing,
    a_poor_account_that_was_rich,
    a_charge_that_is_off_by_one,
)
