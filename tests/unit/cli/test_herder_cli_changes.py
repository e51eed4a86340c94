"""`herd order cancel|rebid`, `herd orders purge`, limits, policy, drain: from the command line."""

from __future__ import annotations

import json

import pytest

from herder.errors import HerdUnavailable
from herder.local.local_herd import LocalHerd
from herder.store import herd as herd_sql
from tests.unit.cli.herder_cli_support import Cli
from workers.transport.streams import Streams
from workers.wire import PrivateKey


@pytest.fixture
def cli(house, monkeypatch) -> Cli:
    return Cli(house, monkeypatch)


def test_a_waiting_order_is_cancelled_and_all_comes_back(cli):
    order = cli.order()
    assert "13 winston were returned" in cli.says("order", "cancel", order)
    assert cli.json("account", "balance")["held"] == 0
    assert cli.json("order", "cancel", order)["state"] == "cancelled"
    assert "no order" in cli.refused("order", "cancel", "nonsense")


def test_a_running_order_is_told_to_stop(cli):
    worker = cli.house.worker()
    order = cli.order()
    worker.claim(cli.house.dispatched())
    assert "is being stopped" in cli.says("order", "cancel", order)


def test_a_completed_order_stays_completed(cli):
    order = cli.completed("so it is")
    assert "had already ended: it is completed" in cli.says("order", "cancel", order)


def test_a_new_bid(cli):
    order = cli.order()
    assert "offers 26 winston, 2 times" in cli.says("order", "rebid", order, "26")
    assert cli.json("order", "rebid", order, "39")["fee"] == 39
    assert cli.json("account", "balance")["held"] == 39
    assert "must be higher" in cli.refused("order", "rebid", order, "20")
    for wrong in ("-3", "1.5", "much"):
        assert "whole number" in cli.refused("order", "rebid", order, wrong)


def test_texts_are_deleted_and_receipts_stay(cli):
    order = cli.completed("so it is")
    waiting = cli.order(key="other")
    assert "Say which" in cli.refused("orders", "purge")
    assert "whole number" in cli.refused("orders", "purge", "--older-than-days", "x")
    assert cli.json("orders", "purge", "--older-than-days", "1") == {"deleted": 0}
    assert "no account" in cli.refused("orders", "purge", "--account", "nobody")
    assert cli.json("orders", "purge", "--account", "default") == {"deleted": 1}
    done = cli.run("order", "show", order, "--text")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "was deleted" in done.stderr
    found = cli.json("order", "show", order, "--text")
    assert (found["text_deleted"], found["receipt"]["charged"]) == (True, 14)
    assert cli.json("orders", "purge", "--order", order) == {"deleted": 0}
    assert cli.json("orders", "purge", "--order", waiting) == {"deleted": 0}
    assert len(cli.json("orders")["orders"]) == 2


def test_limits_of_an_account_and_of_all(cli):
    assert "max_open_orders 1" in cli.says("account", "limit", "default", "--open-orders", "1")
    cli.order()
    done = cli.run("submit", "two words", "-n", "10", "--no-wait")
    assert done.exit_code == 1  # try again later
    assert "1 open orders" in done.stderr
    cli.says("account", "limit", "default")
    cli.order(key="other")
    assert "no account" in cli.refused("account", "limit", "nobody")
    assert "whole number" in cli.refused("account", "limit", "default", "--open-orders", "x")
    set_to = cli.json("policy", "set", "--max-open-orders", "2", "--tokens-per-minute", "1000")
    assert (set_to["policy"]["max_open_orders"], set_to["ranked_anew"]) == (2, 0)
    assert cli.run("submit", "two words", "-n", "10", "--no-wait").exit_code == 1


def test_waiting_orders_are_ranked_anew_when_waiting_weighs_anew(cli):
    house = cli.house
    old = house.submit(fee=13)
    house.now_us += 60_000_000
    new = house.submit(fee=26)
    assert "2 open orders were ranked again" in cli.says("policy", "set", "--aging-s", "10")
    assert "aging_s" in cli.says("policy", "show")
    worker = house.worker(slots=2)
    assert [job.order for job in house.dispatch()] == [old.id, new.id]
    assert worker.slots == 2
    for wrong in (["--aging-s", "-1"], ["--aging-s", "x"], []):
        cli.refused("policy", "set", *wrong)


def test_a_worker_is_told_to_drain(cli, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(
        Streams, "add_controls", lambda _, messages: told.extend(one for one, _ in messages)
    )
    worker = cli.house.worker("gpu-1")
    assert "gpu-1" in cli.refused("worker", "drain", "other")
    assert cli.json("worker", "drain", "gpu-1")["instances"] == [worker.instance] == told


def test_a_worker_cannot_be_told_without_redis(cli):
    cli.house.worker("gpu-1")
    done = cli.run("worker", "drain", "gpu-1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Redis is out of reach" in done.stderr


def test_a_worker_is_revoked_and_its_order_goes_to_another(cli, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(
        Streams, "add_controls", lambda _, messages: told.extend(one for one, _ in messages)
    )
    house = cli.house
    bad = house.worker("gpu-1")
    order = house.submit(fee=26)
    job = house.dispatched()
    bad.claim(job)
    assert "Workers: gpu-1, worker." in cli.refused("worker", "revoke", "other")
    found = cli.json("worker", "revoke", "gpu-1")
    assert (found["keys"], found["instances"], found["running"]) == (
        [bad.key.kid], [bad.instance], 1,
    )  # fmt: skip
    assert told == [bad.instance]
    assert "Workers: worker." in cli.refused("worker", "revoke", "gpu-1")

    waiting = house.submit(fee=26)
    assert house.dispatch() == [], "nothing goes to it"
    house.cancellation.cancel(waiting.id)

    # What it says now counts for nothing, and each time it is told so.
    assert [type(body).__name__ for _, body in bad.beat().control] == ["Reject"]
    assert bad.finish(job, text="forged").ended == []
    house.lapse(house.settings.lease_s + 1)
    good = house.worker("gpu-2")
    good.finish(house.dispatched(), text="right")
    assert house.answer(order.id) == "right"


def test_a_worker_is_revoked_by_its_keys_id_without_redis_and_may_join_with_another(cli):
    house = cli.house
    cli.says("worker", "add", "gpu-1")
    file = house.settings.home / "workers" / "gpu-1.json"
    first = PrivateKey.from_jwk(json.loads(file.read_text())["worker"])
    said = cli.says("worker", "revoke", first.kid)
    assert said == f"Revoked 1 key of {first.kid}.\n"
    cli.says("worker", "add", "gpu-1")
    second = PrivateKey.from_jwk(json.loads(file.read_text())["worker"])
    assert second.kid != first.kid
    with house.database.read() as connection:
        live = herd_sql.live_kids(connection, herd_sql.WORKER)
    assert (first.kid in live, second.kid in live) == (False, True)


def test_a_worker_that_announces_another_name_is_revoked_by_it(cli, monkeypatch):
    monkeypatch.setattr(Streams, "add_controls", lambda *_: None)
    worker = cli.house.worker("gpu-1")
    worker.name = "gpu-1-of-two"
    worker.beat()
    said = cli.says("worker", "revoke", "gpu-1-of-two")
    assert said.startswith(
        "Revoked 1 key of gpu-1-of-two.\nTold 1 process to end. 0 running orders"
    )


def test_a_time_to_begin_by_and_a_longest_run(cli):
    assert "zone" in cli.refused("submit", "a", "-n", "1", "--start-by", "soon", "--no-wait")
    assert "run_limit_s" in cli.refused("submit", "a", "-n", "1", "--run-limit", "0", "--no-wait")
    later = "2999-01-31T18:00:00+00:00"
    receipt = cli.json(
        "submit", "a", "-n", "1", "--start-by", later, "--run-limit", "7", "--no-wait"
    )["receipt"]
    order = cli.house.order(receipt["order"])
    assert (order.run_limit_s, order.start_by_us) == (7, 32_474_800_800_000_000)


@pytest.mark.parametrize(("answer", "state"), [("y\n", "cancelled"), ("n\n", "queued")])
def test_ctrl_c_asks_whether_to_cancel(cli, monkeypatch, answer, state):
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalHerd, "stream", interrupted)
    monkeypatch.setattr("herder.cli.submit._can_ask", lambda: True)
    done = cli.run("submit", "two words", "-n", "10", stdin=answer)
    assert done.exit_code == 130
    (order,) = cli.json("orders")["orders"]
    assert order["state"] == state
    assert "Cancel order" in done.stderr


def test_a_busy_database_is_no_refusal(cli, monkeypatch):
    def busy(*_: object, **__: object) -> object:
        raise HerdUnavailable("The database is busy; try again.")

    monkeypatch.setattr(LocalHerd, "cancel", busy)
    assert cli.run("order", "cancel", "x").exit_code == 1
