"""Messages among many who write and read, and among those who die: each is there once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pkgutil import resolve_name

import pytest

from herder.messages.inbox import InboxChanges, OutgoingMessage, deliver, read_inbox
from herder.store import messages as message_sql
from tests.support.house import House
from tests.support.wait import wait_for
from tests.unit.orders.test_herder_at_once import one_waits

LETTER = OutgoingMessage("default", {"Action": "Test"}, None)


class Died(BaseException):
    """A process that ended there: nothing that follows is done."""


@pytest.fixture
def postgres_house(postgres_server, tmp_path, clean_environment):
    name = postgres_server.new_database(postgres_server.migrated)
    made = House(tmp_path, database_url=postgres_server.url(name))
    made.fund(1000)
    yield made
    made.check()
    made.close()
    postgres_server.drop(name)


def deliver_and_die(house):
    """Draw numbers for messages, and never commit."""
    with suppress(Died), house.database.write() as connection:
        deliver(connection, [LETTER, LETTER], house.now_us)
        assert numbers_drawn(connection) > 0
        raise Died


def numbers_drawn(connection):
    return message_sql.newest(connection, ["default"])["default"]


def numbers(house, after=0):
    return [one.number for one in read_inbox(house.database, "default", after, 100)]


def test_a_lower_number_is_never_seen_after_a_higher_one(postgres_house):
    """Who draws a number waits for the commit of whoever drew the one before."""
    house = postgres_house
    with ThreadPoolExecutor(1) as pool:
        with house.database.write() as connection:
            deliver(connection, [LETTER, LETTER], house.now_us)
            later = pool.submit(house.send, Action="Balance")
            wait_for(lambda: one_waits(house), "the second waits for the first")
            assert numbers(house) == []
        later.result()
    assert numbers(house) == [1, 2, 3]
    assert numbers(house, after=2) == [3]


def test_a_number_that_was_drawn_for_nothing_is_drawn_again(house):
    deliver_and_die(house)
    house.send(Action="Balance")
    assert numbers(house) == [1]


def test_a_reader_misses_none_and_has_none_twice(house):
    """Writers of several threads, some of whom give up; a reader goes on after what he had."""
    over = threading.Event()
    read: list[int] = []

    def reads():
        after = 0
        while True:
            last_round = over.is_set()
            found = numbers(house, after)
            read.extend(found)
            if found:
                after = found[-1]
            elif last_round:
                return

    def writes(writer):
        for number in range(20):
            if number % 5 == writer:
                deliver_and_die(house)
            house.send(Action="Balance")

    with ThreadPoolExecutor(6) as pool:
        reading = [pool.submit(reads) for _ in range(2)]
        for one in [pool.submit(writes, writer) for writer in range(4)]:
            one.result()
        over.set()
        for one in reading:
            one.result()
    assert sorted(read) == sorted(2 * list(range(1, 81)))


def test_whoever_waits_is_told_of_what_he_has_not_read(house):
    news = InboxChanges(house.database)
    assert news.changed(["default"]) == {"default"}, "nobody knows yet"
    assert news.changed(["default", "nobody"]) == set()
    house.send(Action="Balance")
    house.fund(5, "ada")
    assert news.changed(["default", "ada"]) == {"default", "ada"}
    assert news.changed(["default", "ada"]) == set()


def test_one_key_at_once_is_one_message(house):
    house.accounts.create("ada")
    pay = {"Action": "Transfer", "Recipient": "ada", "Quantity": "7"}
    ask = {"Action": "Transfer", "Recipient": "herder", "Quantity": "26"}
    ask |= {"X_Prompt": "two words", "X_Tokens": "10"}
    with ThreadPoolExecutor(8) as pool:
        paid = list(pool.map(lambda _: house.send(key="p", **pay), range(8)))
        asked = list(pool.map(lambda _: house.send(key="a", **ask), range(8)))
    assert len({one.id for one in paid}) == len({one.id for one in asked}) == 1
    assert len({one.order for one in asked}) == 1
    assert sum(bool(one.told) for one in paid) == 1
    assert (house.available("ada"), house.held()) == (7, 26)
    assert (len(house.inbox()), len(house.inbox("ada"))) == (1, 1)


@pytest.mark.parametrize(
    "where",
    [
        "herder.orders.closing.book_sql.end",
        "herder.orders.closing.account_sql.count_out",
        "herder.messages.inbox.message_sql.draw_numbers",
        "herder.messages.inbox.message_sql.insert_messages",
        "herder.orders.closing.key_sql.count",
        "ledger.book.Ledger.void_many",
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_who_dies_while_it_settles_leaves_neither_end_nor_answer(house, monkeypatch, where, after):
    worker = house.worker()
    sent = house.ask(26)
    job = house.dispatched()
    with monkeypatch.context() as patch:
        patch.setattr(where, dying(where, after=after))
        with pytest.raises(Died):
            worker.finish(job)
    assert (house.order(sent.order).state, house.inbox()) == ("dispatched", [])
    worker.finish(job)
    worker.finish(job)
    assert house.order(sent.order).state == "completed"
    assert [one["Action"] for one in house.inbox()] == ["Inference-Response"]


@pytest.mark.parametrize(
    "where",
    [
        "herder.messages.handler.message_sql.find_key",
        "herder.accounts.accounts.Accounts.pay",
        "herder.orders.intake.order_sql.insert_order",
        "herder.messages.handler.message_sql.add_key",
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_who_dies_while_it_takes_a_message_leaves_nothing_and_it_may_be_sent_again(
    house, monkeypatch, where, after
):
    house.accounts.create("ada")
    pay = {"key": "p", "Action": "Transfer", "Recipient": "ada", "Quantity": "7"}
    ask = {"key": "a", "Action": "Transfer", "Recipient": "herder", "Quantity": "26"}
    ask |= {"X_Prompt": "two words", "X_Tokens": "10"}
    before = house.traces()
    with monkeypatch.context() as patch:
        patch.setattr(where, dying(where, after=after))
        deaths = 0
        for tags in (pay, ask):
            try:
                house.send(**tags)
            except Died:
                deaths += 1
            else:
                house.send(**tags)
        assert deaths, "nobody died"
    if deaths == 2:
        assert (house.traces(), house.available(), house.inbox()) == (before, 100_000, [])
    for tags in (pay, ask):
        house.send(**tags)
    assert (house.available("ada"), house.held()) == (7, 26)
    assert (len(house.inbox()), len(house.inbox("ada"))) == (1, 1)


def dying(where, *, after):
    """The same function, where somebody dies before it does anything, or just after."""
    owner, _, name = where.rpartition(".")
    real = getattr(resolve_name(owner), name)

    def dies(*args, **given):
        if after:
            real(*args, **given)
        raise Died

    return dies


def test_the_inbox_is_told_of_in_the_order_of_the_ends(house):
    worker = house.worker(slots=3)
    for reference in "abc":
        house.ask(26, X_Reference=reference)
    jobs = house.dispatch()
    settled = house.settlement.settle([worker.answer(job) for job in reversed(jobs)])
    assert settled.inboxes == {"default"}
    assert [one["X-Reference"] for one in house.inbox()] == ["c", "b", "a"]
