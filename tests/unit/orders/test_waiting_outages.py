"""The database goes away for whoever waits beside the herder: what was taken is answered for."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from herder.db import database as databases
from herder.db.outages import CommitUnknown
from herder.errors import (
    HerdUnavailable,
    OrderCancelled,
    OrderNotFound,
    ResultTimeout,
    SetupError,
)
from herder.local import cancellations
from herder.local.local_herd import LocalHerd
from herder.settings import load_settings
from tests.support.wait import wait_for
from tests.unit.cli.herder_cli_support import NO_REDIS, Cli


@pytest.fixture
def herd(outage_house):
    settings = load_settings(
        outage_house.settings.home, database_url=outage_house.settings.database, redis_url=NO_REDIS
    )
    made = LocalHerd(settings)
    yield made
    made.close()


@pytest.fixture
def order(outage_house, herd):
    """An order that a worker has, and what completes it."""
    worker = outage_house.worker()
    receipt = herd.submit("two words", 10, fee=26)
    job = outage_house.dispatched()
    return receipt.order, lambda: worker.finish(job, text="so it is", generated=10)


class Background:
    """Something that is done on a thread."""

    def __init__(self, does: Any) -> None:
        self.answer: Any = None
        self._does = does
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._does()
        except Exception as error:  # noqa: BLE001 (the test looks at it)
            self.answer = error

    def done(self) -> Any:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.answer


@pytest.mark.parametrize("away_s", [0.3, 3])
def test_results_and_streams_are_waited_for_through_an_outage(herd, order, outage, away_s):
    order_id, complete = order
    before = [
        Background(lambda: herd.result(order_id, None).text),
        Background(lambda: "".join(herd.stream(order_id))),
    ]
    wait_for(lambda: len(herd.watcher._waiting.get(order_id, ())) == 2, "both wait")
    outage.begin()
    during = [
        Background(lambda: herd.result(order_id, 60).text),
        Background(lambda: "".join(herd.stream(order_id))),
    ]
    time.sleep(away_s)
    outage.end()
    complete()
    assert [one.done() for one in (*before, *during)] == ["so it is"] * 4


def test_a_time_out_holds_in_an_outage_and_leaves_nobody_waiting(herd, order, outage):
    order_id, complete = order
    waiting = Background(lambda: herd.result(order_id, 2))
    wait_for(lambda: herd.watcher._waiting, "it waits")
    outage.begin()
    for answer in (waiting.done(), Background(lambda: herd.result(order_id, 0.2)).done()):
        assert isinstance(answer, ResultTimeout)
        assert order_id in str(answer)
    event = threading.Event()
    herd.watcher.add(order_id, event)
    herd.watcher.remove(order_id, event)
    assert herd.watcher._waiting == {}
    outage.end()
    complete()
    assert herd.result(order_id, 60).text == "so it is"


def test_a_callback_that_is_asked_for_in_an_outage_is_called(herd, order, outage):
    order_id, complete = order
    answers: list[str] = []
    errors: list[Exception] = []
    outage.begin()
    herd.call_back(order_id, answers.append, errors.append)
    time.sleep(1)
    assert not errors
    outage.end()
    complete()
    wait_for(lambda: answers or errors, "it is called")
    assert (answers, errors) == (["so it is"], [])


def test_a_cancellation_is_made_through_a_short_outage(herd, outage):
    order_id = herd.submit("two words", 10, fee=26).order
    outage.begin()
    threading.Timer(0.5, outage.end).start()
    assert herd.cancel(order_id).state == "cancelled"


def test_a_cancellation_is_remembered_through_a_long_one(herd, outage, monkeypatch):
    monkeypatch.setattr(cancellations, "PATIENCE_S", 0.2)
    order_id = herd.submit("two words", 10, fee=26).order
    outage.begin()
    with pytest.raises(HerdUnavailable) as caught:
        herd.cancel(order_id)
    assert f"herd order cancel {order_id}" in str(caught.value)
    assert caught.value.data["order"] == order_id
    outage.end()
    with pytest.raises(OrderCancelled):
        herd.result(order_id, 60)


def test_those_that_are_left_are_made_or_named_when_the_herd_is_closed(
    outage_house, outage, herd, monkeypatch, caplog
):
    monkeypatch.setattr(cancellations, "PATIENCE_S", 0.0)
    order_id = herd.submit("two words", 10, fee=26).order
    outage.begin()
    with pytest.raises(HerdUnavailable):
        herd.cancel(order_id)
    herd.close()
    assert f"herd order cancel {order_id}" in caplog.text
    outage.end()
    assert outage_house.order(order_id).state == "queued"


def test_an_order_that_nobody_knows_of_is_cancelled(outage_house, herd, outage, monkeypatch):
    monkeypatch.setattr(databases, "SETTLE_S", 0.2)
    outage.at_commit()
    with pytest.raises(CommitUnknown) as caught:
        herd.submit("two words", 10, fee=26)
    order_id = caught.value.data["order"]
    assert order_id in str(caught.value)
    outage.end()
    with pytest.raises(OrderCancelled):
        herd.result(order_id, 60)


def test_an_order_that_nobody_knows_of_is_not_cancelled_where_a_key_finds_it(
    outage_house, herd, outage, monkeypatch
):
    monkeypatch.setattr(databases, "SETTLE_S", 0.2)
    outage.at_commit()
    with pytest.raises(CommitUnknown) as caught:
        herd.submit("two words", 10, fee=26, idempotency_key="mine")
    outage.end()
    again = herd.submit("two words", 10, fee=26, idempotency_key="mine")
    assert (again.order, again.state) == (caught.value.data["order"], "queued")


def test_one_cancellation_that_fails_keeps_no_other_from_being_made(herd, monkeypatch):
    orders = [herd.submit("two words", 10, fee=26).order for _ in range(2)]
    remembered = herd.cancellations
    real = remembered._cancel

    def cancel(order_id: str, *, account: str | None = None) -> Any:
        if order_id == orders[0]:
            raise ValueError("planted")
        return real(order_id, account=account)

    monkeypatch.setattr(remembered, "_cancel", cancel)
    for order_id in (orders[0], "no-such-order", orders[1]):
        assert remembered.remember(order_id)
    with pytest.raises(OrderCancelled):
        herd.result(orders[1], 60)
    with pytest.raises(OrderNotFound):
        herd.order("no-such-order")
    monkeypatch.setattr(cancellations, "MAX_REMEMBERED", 0)
    assert not remembered.remember(orders[0])


@pytest.mark.parametrize("error", [HerdUnavailable("Its row is locked."), SetupError("No rights.")])
def test_one_that_cannot_be_cancelled_now_is_remembered_behind_the_others(herd, monkeypatch, error):
    orders = [herd.submit("two words", 10, fee=26).order for _ in range(2)]
    remembered = herd.cancellations
    real = remembered._cancel
    stuck = {orders[0]}

    def cancel(order_id: str, *, account: str | None = None) -> Any:
        if order_id in stuck:
            raise error
        return real(order_id, account=account)

    monkeypatch.setattr(remembered, "_cancel", cancel)
    for order_id in orders:
        assert remembered.remember(order_id)
    with pytest.raises(OrderCancelled):
        herd.result(orders[1], 60)
    assert herd.order(orders[0]).state == "queued"
    stuck.clear()
    with pytest.raises(OrderCancelled):
        herd.result(orders[0], 60)


def test_an_order_whose_commit_takes_long_is_cancelled_when_it_appears(herd, monkeypatch):
    """As where a server that goes on waits for its disk, or for a standby."""
    order_id = str(uuid4())
    remembered = herd.cancellations
    real, asked = remembered._cancel, threading.Event()

    def cancel(*args: Any, **given: Any) -> Any:
        try:
            return real(*args, **given)
        finally:
            asked.set()

    monkeypatch.setattr(remembered, "_cancel", cancel)
    # Another account has no say in it, whoever asks last.
    assert remembered.remember(order_id, is_taken=False)
    assert remembered.remember(order_id, account="ada")
    assert asked.wait(60)
    monkeypatch.setattr(herd.intake, "_new_id", lambda: order_id)
    assert herd.submit("two words", 10, fee=26).order == order_id
    with pytest.raises(OrderCancelled):
        herd.result(order_id, 60)


# The command


@pytest.fixture
def cli(outage_house, monkeypatch):
    return Cli(outage_house, monkeypatch)


def away_once_taken(monkeypatch, outage, away_s: float) -> threading.Event:
    """The database goes away when the next order has just been taken.

    Returns:
        Set once it is away.
    """
    real, away = LocalHerd.submit, threading.Event()

    def submit(herd: LocalHerd, *given: Any, **call: Any) -> Any:
        receipt = real(herd, *given, **call)
        outage.begin()
        away.set()
        threading.Timer(away_s, outage.end).start()
        return receipt

    monkeypatch.setattr(LocalHerd, "submit", submit)
    return away


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_herd_submit_waits_for_the_answer_through_an_outage(
    cli, outage, outage_house, monkeypatch, more
):
    worker = outage_house.worker()
    away = away_once_taken(monkeypatch, outage, 1)
    done = Background(lambda: cli.run("submit", "two words", "-n", "10", "--fee", "26", *more))

    def job() -> Any:
        try:
            return outage_house.dispatch()
        except HerdUnavailable:
            return None

    # Before, what is dispatched might not be finished any more.
    assert away.wait(60)
    (given,) = wait_for(job, "it is dispatched")
    worker.finish(given, text="so it is", generated=10)
    found = done.done()
    assert found.exit_code == 0
    assert "so it is" in found.stdout
    assert found.stderr.startswith(f"Order {given.order} is queued.\n")


def test_no_wait_needs_no_second_look(cli, outage, monkeypatch):
    away_once_taken(monkeypatch, outage, 2)
    done = cli.run("submit", "two words", "-n", "10", "--no-wait", "--json")
    assert (done.exit_code, '"state": "queued"' in done.stdout) == (0, True)


def test_ctrl_c_cancels_once_the_database_is_back(cli, outage, monkeypatch):
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(cancellations, "PATIENCE_S", 0.1)
    monkeypatch.setattr(LocalHerd, "stream", interrupted)
    monkeypatch.setattr("herder.cli.submit._can_ask", lambda: True)
    away_once_taken(monkeypatch, outage, 3)
    done = cli.run("submit", "two words", "-n", "10", stdin="y\n")
    assert done.exit_code == 130
    assert "will be cancelled as soon as it does" in done.stderr
    (order,) = cli.json("orders")["orders"]
    assert order["state"] == "cancelled"
