"""The judge can fail: each wrong that is planted is reported, and nothing in a herd that is right.

And no commit of the five operations is without its points.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from sqlalchemy import select

from herder.db.tables import event
from herder.domain.order import State
from tests.chaos.clients import Seen
from tests.chaos.judge import judge
from tests.chaos.test_points import CLIENTS, HERDERS
from tests.support.house import House

HERDER = Path(__file__).parents[2] / "herder"

BLIND = (
    "PRAGMA ignore_check_constraints=ON",
    "PRAGMA foreign_keys=OFF",
)
"""With these the database lets anything be done to it."""


@pytest.fixture
def house(tmp_path, clean_environment):
    """Three orders, of which the best went first, one was cancelled, and one cut short."""
    house = House(tmp_path / "house")
    house.fund(100_000)
    yield house
    house.close()


@pytest.fixture
def seen(house):
    """What the clients know of the orders."""
    told = {}
    worker = house.worker()

    def acknowledged(order):
        house.now_us += 10
        told[order.id] = Seen(order.id, [(house.now_us, order.fee)])
        house.now_us += 10
        return order

    plain = acknowledged(house.submit(tokens=2, fee=30))
    best = acknowledged(house.submit(tokens=2, fee=20))
    gone = acknowledged(house.submit(tokens=2, fee=25))
    house.intake.rebid(best.id, 40)
    house.now_us += 10
    told[best.id].bids.append((house.now_us, 40))
    house.now_us += 10
    house.cancellation.cancel(gone.id)
    for order in (best, plain):
        job = house.dispatched()
        assert job.order == order.id
        house.now_us += 10
        worker.claim(job)
        house.now_us += 10
        worker.finish(job, text="so is")
    for one in told.values():
        one.told = [house.order(one.id).state.value] * 2
        one.text = house.answer(one.id)
    return {"plain": told[plain.id], "best": told[best.id], "gone": told[gone.id]}


def judged(house, seen):
    return judge(house.database, list(seen.values()), max_attempts=3)


def plant(house, *statements):
    """Do something to the database that it would refuse."""
    raw = house.database._server._writer.raw_connection()
    for statement in (*BLIND, *statements):
        raw.driver_connection.execute(statement)
    raw.driver_connection.commit()
    raw.close()


def test_a_herd_that_is_right_is_found_right(house, seen):
    assert judged(house, seen) == {"completed": 2, "cancelled": 1}


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        ("UPDATE order_text SET answer = NULL WHERE order_id = :best", "has no text"),
        ("UPDATE order_text SET answer = 'so' WHERE order_id = :best", "1 words and paid for 2"),
        ("UPDATE orders SET charged = charged + 1 WHERE id = :best", "was charged 41, and 40"),
        (
            "INSERT INTO event (order_id, kind, at_us, attempt) VALUES (:best, 'completed', 1, 1)",
            "ended ['completed', 'completed']",
        ),
        (
            "INSERT INTO event (order_id, kind, at_us, attempt) VALUES (:gone, 'started', 1, 1)",
            "started after its end",
        ),
        ("UPDATE orders SET state = 'queued' WHERE id = :gone", "is queued and ended"),
        (
            "UPDATE orders SET charged = 8, generated = 1 WHERE id = :gone",
            "was cancelled, read by nobody, and charged 8",
        ),
        (
            "UPDATE orders SET call_off = 'cancelled' WHERE id = :best",
            "was cancelled, read by nobody, and counts as completed",
        ),
        ("UPDATE orders SET tries = 4 WHERE id = :best", "was tried 4 times"),
        (
            "UPDATE orders SET state = 'failed', failure = '{\"code\": \"answer_too_long\"}'"
            " WHERE id = :plain",
            "failed of answer_too_long",
        ),
        ("DELETE FROM orders WHERE id = :gone", "was accepted and is lost"),
        (
            "UPDATE ledger_account SET debits_posted = 200000 WHERE id = 'client:default'",
            "account client:default is negative",
        ),
        (
            "UPDATE ledger_account SET debits_pending = 7 WHERE id = 'client:default'",
            "account client:default has a hold left",
        ),
        (
            "UPDATE ledger_account SET credits_posted = credits_posted + 1"
            " WHERE id LIKE 'revenue:%'",
            "winston were charged, and",
        ),
        ("UPDATE orders SET fee = 39 WHERE id = :best", "and 40 was acknowledged"),
        ("UPDATE orders SET message = 'm' WHERE id = :plain", "its message was not answered"),
        (
            "INSERT INTO message (account, number, at_us, order_id, tags)"
            " VALUES ('default', 1, 1, :gone, '{}')",
            "answered that had none coming",
        ),
    ],
)
def test_a_wrong_in_the_database_is_reported(wrong, reported, house, seen):
    for name, one in seen.items():
        wrong = wrong.replace(f":{name}", f"'{one.id}'")
    plant(house, wrong)
    with pytest.raises(AssertionError) as error:
        judged(house, seen)
    assert reported in str(error.value)


def test_a_balance_that_its_transfers_do_not_explain_is_reported(house, seen):
    """The same winston too many on both sides: only the audit can tell."""
    plant(
        house,
        "UPDATE ledger_account SET credits_posted = credits_posted + 1 WHERE id = 'client:default'",
        "UPDATE ledger_account SET debits_posted = debits_posted + 1 WHERE allow_overdraft = 1",
    )
    with pytest.raises(AssertionError, match="credits_posted"):
        judged(house, seen)


def test_a_client_that_was_told_another_end_is_reported(house, seen):
    seen["plain"].told = ["failed", "completed"]
    with pytest.raises(AssertionError, match="its client was told"):
        judged(house, seen)


def test_a_client_that_was_told_nothing_is_reported(house, seen):
    seen["plain"].told = []
    with pytest.raises(AssertionError, match="its client was told"):
        judged(house, seen)


def test_a_client_that_was_given_another_text_is_reported(house, seen):
    seen["plain"].text = "so was"
    with pytest.raises(AssertionError, match="another text"):
        judged(house, seen)


def test_an_order_of_nobody_is_reported(house, seen):
    del seen["gone"]
    with pytest.raises(AssertionError, match="is nobody's"):
        judged(house, seen)


@pytest.mark.parametrize("how", ["acknowledged", "waited"])
def test_an_order_that_went_before_a_better_one_is_reported(how, house, seen):
    with house.database.read() as connection:
        dispatches = connection.execute(
            select(event.c.seq, event.c.at_us, event.c.order_id)
            .where(event.c.kind == "dispatched")
            .order_by(event.c.seq)
        ).all()
    first, second = dispatches
    assert first.order_id == seen["best"].id
    # The worse one's dispatch, and no other event, is put before the better one's.
    worse = seen["plain"].id
    plant(house, f"UPDATE event SET order_id = '{worse}' WHERE seq = {first.seq}")
    if how == "waited":
        # Its client never heard of the better bid: then only the order of commits can tell.
        seen["best"].bids[-1] = (second.at_us + 1_000_000, 40)
    with pytest.raises(AssertionError) as error:
        judged(house, seen)
    assert (f"{worse} went before {seen['best'].id}, which was ack" in str(error.value)) == (
        how == "acknowledged"
    )
    assert f"{worse} went before {seen['best'].id}, which waited" in str(error.value)


def test_an_order_that_came_too_late_to_be_chosen_is_no_inversion(house):
    worker = house.worker()
    orders, seen, jobs = [], {}, []
    for fee in (10, 40):
        orders.append(house.submit(tokens=2, fee=fee))
        house.now_us += 10
        seen[fee] = Seen(orders[-1].id, [(house.now_us, fee)])
        house.now_us += 10
        jobs += house.dispatch()
    worker.claim(jobs[0])
    worker.finish(jobs[0], text="so is")
    jobs += house.dispatch()
    worker.finish(jobs[1], text="so is")
    assert [job.order for job in jobs] == [order.id for order in orders]
    for one in seen.values():
        one.told, one.text = [State.COMPLETED.value], "so is"
    assert judged(house, seen) == {"completed": 2}


def test_each_commit_that_moves_an_order_has_its_points():
    """Whoever adds one adds its points, or says here why it does not matter."""
    elsewhere = {
        "OrderIntake.refund",  # an operator's
        "Dispatcher._give_up",  # ends what cannot be sent, of which these herds have none
        "Dispatcher.sweep",  # forgets messages
        "HeartbeatProcessor.mark",  # a second of the clock
        "HeartbeatProcessor.sweep",  # workers that are silent
    }
    openers = {
        *("self._database.write", "self._database.transact", "self._database.settle"),
        "self._closer.close",
    }
    commits = set()
    for name in (
        *("orders/intake", "orders/dispatch", "orders/settlement", "orders/cancellation"),
        *("herd/heartbeats", "messages/handler"),
    ):
        tree = ast.parse((HERDER / f"{name}.py").read_text())
        for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            for function in (node for node in owner.body if isinstance(node, ast.FunctionDef)):
                called = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
                if openers & set(map(ast.unparse, called)):
                    commits.add(f"{owner.name}.{function.name}")
    points = {point.rpartition("/")[0] for point in (*HERDERS, *CLIENTS) if "KILL" in point}
    for commit in commits - elsewhere:
        assert {f"{commit}/before", f"{commit}/after"} <= points, f"{commit} has no points"
    assert {"OrderIntake.submit", "Dispatcher._take", "Settlement.settle"} <= commits
