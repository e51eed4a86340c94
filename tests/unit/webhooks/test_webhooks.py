"""Webhooks: written down where orders end, sent by whoever is there, lost by nobody."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, event, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from herder.db.database import Database
from herder.db.tables import webhook_delivery, webhook_endpoint
from herder.errors import AccountNotFound, InvalidRequest, InvalidWebhook, WebhookNotFound
from herder.messages.inbox import read_inbox
from herder.orders.retention import purge
from herder.store import claims as claim_sql
from herder.store import deliveries as delivery_sql
from herder.webhooks import deliverer as deliverer_module
from herder.webhooks import events, messages
from herder.webhooks.schedule import RETRIES_S, Reply
from herder.webhooks.signing import Sealer
from tests.support.house import FakeReceiver
from workers.wire import PrivateKey

URL = "https://ada.example/herd"
DAY_US = 86_400_000_000


@pytest.fixture
def receiver():
    return FakeReceiver()


@pytest.fixture
def deliverer(house, receiver):
    return house.new_deliverer(receiver)


def complete(house, worker, **call):
    """An order that a worker completes."""
    order = house.submit(**call)
    job = house.dispatched()
    worker.claim(job)
    worker.finish(job)
    return house.order(order.id)


def end_each_way(house):
    """An order of each end: completed, failed, cancelled, expired."""
    worker = house.worker()
    done = complete(house, worker)
    failed = house.submit()
    worker.fail(house.dispatched(), permanent=True)
    cancelled = house.submit()
    house.cancellation.cancel(cancelled.id)
    expired = house.submit(start_by_us=house.now_us + 1)
    house.now_us += 10
    house.cancellation.sweep()
    ends = [house.order(one.id) for one in (done, failed, cancelled, expired)]
    assert [one.state.value for one in ends] == ["completed", "failed", "cancelled", "expired"]
    return ends


def sent(request):
    return json.loads(request.body)


def work_off(deliverer):
    """Take steps until nothing is to be done."""
    while deliverer.step(0):
        pass


def test_each_end_of_an_order_is_told_once_with_its_receipt(house, deliverer, receiver):
    endpoint, secret = house.webhooks.create("default", URL)
    orders = end_each_way(house)
    work_off(deliverer)
    told = {sent(one)["data"]["order"]: one for one in receiver.requests}
    assert len(receiver.requests) == len(told) == 4
    for order in orders:
        request = told[order.id]
        document = Webhook(secret).verify(request.body, request.headers)
        assert document["type"] == f"order.{order.state.value}"
        assert document["timestamp"].endswith("Z")
        assert document["data"]["receipt"]["charged"] == order.charged
        assert document["data"]["receipt"]["state"] == order.state.value
        assert "text" not in document["data"]
        assert request.url == URL
        kind = f"order.{order.state.value}"
        assert request.headers["webhook-id"] == events.message_id(kind, order.id, endpoint.id)
        assert request.headers["content-type"] == "application/json"
    assert {one.state for one in house.webhooks.deliveries.page(endpoint.id).items} == {"delivered"}
    work_off(deliverer)
    assert len(receiver.requests) == 4


def test_an_endpoint_is_told_what_it_listens_to_and_of_its_own_account(house, deliverer, receiver):
    house.fund(1000, "ada")
    house.webhooks.create("default", URL, types=["order.failed", "order.cancelled"])
    house.webhooks.create("default", URL + "/2")
    house.webhooks.create("ada", URL + "/ada")
    end_each_way(house)
    work_off(deliverer)
    by_url: dict[str, list[str]] = {}
    for request in receiver.requests:
        by_url.setdefault(request.url, []).append(sent(request)["type"])
    assert sorted(by_url[URL]) == ["order.cancelled", "order.failed"]
    assert sorted(by_url[URL + "/2"]) == sorted(events.ORDER_TYPES)
    assert URL + "/ada" not in by_url
    assert len(set(receiver.ids)) == 6, "each endpoint's message has an id of its own"


def test_a_step_that_is_undone_leaves_nothing_to_be_told(house, deliverer, receiver, monkeypatch):
    endpoint, _ = house.webhooks.create("default", URL)
    order = house.submit()

    def die(*_):
        raise OSError("the ledger is away")

    with monkeypatch.context() as patched:
        patched.setattr(house.books, "void_many", die)
        with pytest.raises(OSError, match="away"):
            house.cancellation.cancel(order.id)
    assert house.webhooks.deliveries.page(endpoint.id).items == []
    house.cancellation.cancel(order.id)
    assert len(house.webhooks.deliveries.page(endpoint.id).items) == 1


def statements(step):
    """What a step asks of the database."""
    heard: list[str] = []

    def hear(_connection, _cursor, statement, *_rest):
        heard.append(statement)

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        step()
    finally:
        event.remove(Engine, "before_cursor_execute", hear)
    return heard


def test_an_account_without_webhooks_pays_one_look_for_all_orders_of_a_transaction(house):
    worker = house.worker(slots=8)

    def settle_eight():
        for _ in range(8):
            house.submit()
        jobs = house.dispatch()
        answers = [worker.answer(job) for job in jobs]
        return statements(lambda: house.settlement.settle(answers))

    without = settle_eight()
    assert sum("webhook" in one for one in without) == 1
    house.webhooks.create("default", URL)
    with_one = settle_eight()
    assert sum("webhook" in one for one in with_one) == 2
    assert len(with_one) == len(without) + 1


def test_the_text_goes_only_to_whom_asked_for_it_and_is_kept_nowhere_else(
    house, deliverer, receiver, monkeypatch
):
    monkeypatch.setattr(messages, "MAX_TEXT_BYTES", 9)
    house.webhooks.create("default", URL, include_text=True)
    worker = house.worker()
    order = house.submit()
    job = house.dispatched()
    worker.finish(job, text="Zanzibär é")
    with house.database.read() as connection:
        (row,) = connection.execute(select(webhook_delivery)).all()
    assert "Zanzib" not in json.dumps(row.data)
    receiver.reply = Reply(500)
    work_off(deliverer)
    data = sent(receiver.requests[0])["data"]
    assert (data["text"], data["text_cut"], data["text_deleted"]) == ("Zanzibär", True, False)
    assert data["finish_reason"] == "length"
    purge(house.database, house.now_us, order_id=order.id)
    house.now_us += 10_000_000
    work_off(deliverer)
    data = sent(receiver.requests[1])["data"]
    assert (data["text"], data["text_cut"], data["text_deleted"]) == ("", False, True)


def test_what_fails_is_tried_again_under_the_same_id_until_it_is_given_up(
    house, deliverer, receiver
):
    endpoint, _ = house.webhooks.create("default", URL)
    complete(house, house.worker())
    receiver.reply = Reply(500)
    for number in range(len(RETRIES_S)):
        work_off(deliverer)
        assert len(receiver.requests) == number + 1
        (one,) = house.webhooks.deliveries.page(endpoint.id).items
        assert (one.state, one.tries, one.status) == ("pending", number + 1, 500)
        house.now_us = one.due_us - 1
        work_off(deliverer)
        assert len(receiver.requests) == number + 1, "not before its time"
        house.now_us = one.due_us
    assert house.webhooks.get(endpoint.id).failing_since_us is None
    work_off(deliverer)
    (one,) = house.webhooks.deliveries.page(endpoint.id, state="dead").items
    assert one.tries == len(RETRIES_S) + 1
    assert len(set(receiver.ids)) == 1
    assert len({request.body for request in receiver.requests}) == 1
    assert len({request.headers["webhook-timestamp"] for request in receiver.requests}) > 1
    found = house.webhooks.get(endpoint.id)
    assert found.failing_since_us == house.now_us
    assert found.enabled

    receiver.reply = Reply(204)
    assert house.webhooks.deliveries.replay(endpoint.id) == 1
    work_off(deliverer)
    assert receiver.ids[-1] == receiver.ids[0]
    (one,) = house.webhooks.deliveries.page(endpoint.id).items
    assert (one.state, one.failures, one.tries) == ("delivered", 0, len(RETRIES_S) + 2)
    assert house.webhooks.get(endpoint.id).failing_since_us is None
    assert house.webhooks.deliveries.replay(endpoint.id) == 0, "nothing is dead any more"


def test_a_receiver_that_is_gone_is_told_nothing_more(house, deliverer, receiver):
    endpoint, _ = house.webhooks.create("default", URL)
    worker = house.worker()
    complete(house, worker)
    receiver.replies = [Reply(500)]
    work_off(deliverer)
    complete(house, worker)
    receiver.reply = Reply(410)
    work_off(deliverer)
    found = house.webhooks.get(endpoint.id)
    assert (found.enabled, found.why) == (False, "gone")
    house.now_us += 10_000_000
    before = len(receiver.requests)
    work_off(deliverer)
    complete(house, worker)
    work_off(deliverer)
    assert len(receiver.requests) == before
    assert [one.state for one in house.webhooks.deliveries.page(endpoint.id).items] == [
        "dead",
        "dead",
    ]
    with pytest.raises(InvalidWebhook, match="disabled"):
        house.webhooks.deliveries.replay(endpoint.id)
    with pytest.raises(InvalidWebhook, match="disabled"):
        house.webhooks.deliveries.test(endpoint.id)
    house.webhooks.enable(endpoint.id)
    receiver.reply = Reply(200)
    assert house.webhooks.deliveries.replay(endpoint.id) == 2
    work_off(deliverer)
    assert len(house.webhooks.deliveries.page(endpoint.id, state="delivered").items) == 2


def test_one_that_fails_for_days_is_disabled(house, receiver):
    deliverer = house.new_deliverer(receiver, retries_s=(1,))
    endpoint, _ = house.webhooks.create("default", URL)
    receiver.reply = Reply(None, "unreachable")
    worker = house.worker()
    for day in (0, 3, 6):
        complete(house, worker)
        work_off(deliverer)
        house.now_us += 2_000_000
        work_off(deliverer)
        assert house.webhooks.get(endpoint.id).enabled == (day < 6)
        house.now_us += 3 * DAY_US
    assert house.webhooks.get(endpoint.id).why == "failing"


def test_two_secrets_sign_while_the_old_one_lives(house, deliverer, receiver):
    endpoint, first = house.webhooks.create("default", URL)
    changed, second = house.webhooks.rotate(endpoint.id)
    assert changed.old_until_us == house.now_us + DAY_US
    worker = house.worker()
    complete(house, worker)
    work_off(deliverer)
    (request,) = receiver.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    for secret in (first, second):
        Webhook(secret).verify(request.body, request.headers)

    _, third = house.webhooks.rotate(endpoint.id)
    complete(house, worker)
    work_off(deliverer)
    request = receiver.requests[-1]
    for secret in (second, third):
        Webhook(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(first).verify(request.body, request.headers)

    house.now_us += DAY_US
    house.webhooks.deliveries.test(endpoint.id)
    work_off(deliverer)
    request = receiver.requests[-1]
    assert sent(request)["type"] == "webhook.test"
    assert len(request.headers["webhook-signature"].split(" ")) == 1
    with house.database.read() as connection:
        (row,) = connection.execute(select(webhook_endpoint)).all()
    for secret in (first, second, third):
        assert secret.removeprefix("whsec_") not in str(row)


def test_a_secret_that_another_key_sealed_is_left_to_whoever_has_that_key(house, receiver):
    endpoint, _ = house.webhooks.create("default", URL)
    complete(house, house.worker())
    stranger = house.new_deliverer(receiver)
    stranger._sealer = Sealer(PrivateKey.generate())
    work_off(stranger)
    assert receiver.requests == []
    assert [one.state for one in house.webhooks.deliveries.page(endpoint.id).items] == ["pending"]
    work_off(house.new_deliverer(receiver))
    assert len(receiver.requests) == 1


def test_a_slow_endpoint_holds_up_no_other(house, receiver):
    deliverer = house.new_deliverer(receiver, at_once=6, each=2)
    house.fund(100_000, "ada")
    house.webhooks.create("default", URL)
    house.webhooks.create("ada", URL + "/quick")
    for _ in range(9):
        house.cancellation.cancel(house.submit().id)
    for _ in range(3):
        house.cancellation.cancel(house.submit(account="ada").id)
    receiver.later = []
    deliverer.step(0)
    urls = [request.url for request in receiver.requests]
    assert sorted(urls) == [URL] * 2 + [URL + "/quick"] * 2
    answers, receiver.later = receiver.later, []
    for request, answer in zip(receiver.requests, answers, strict=True):
        if request.url != URL:
            answer()
    deliverer.step(0)
    assert [request.url for request in receiver.requests[4:]] == [URL + "/quick"]
    assert deliverer.under_way == 3


def test_what_a_killed_herder_had_claimed_is_sent_by_another(house, receiver):
    endpoint, _ = house.webhooks.create("default", URL)
    complete(house, house.worker())
    killed = FakeReceiver()
    killed.later = []
    house.new_deliverer(killed).step(0)
    assert len(killed.requests) == 1
    other = house.new_deliverer(receiver)
    work_off(other)
    assert receiver.requests == [], "it may still be sending"
    house.now_us += 31_000_000
    work_off(other)
    assert receiver.ids == killed.ids
    assert [one.state for one in house.webhooks.deliveries.page(endpoint.id).items] == ["delivered"]


def test_a_late_reply_does_not_undo_what_another_herder_did_meanwhile(house, receiver):
    endpoint, _ = house.webhooks.create("default", URL)
    complete(house, house.worker())
    stalled = FakeReceiver()
    stalled.later = []
    one = house.new_deliverer(stalled)
    one.step(0)
    house.now_us += 31_000_000
    work_off(house.new_deliverer(receiver))
    stalled.reply = Reply(None, "timeout")
    for answer in stalled.later:
        answer()
    work_off(one)
    (found,) = house.webhooks.deliveries.page(endpoint.id).items
    assert (found.state, found.tries, found.trouble) == ("delivered", 1, None)


def test_many_herders_at_once_send_each_message_once(house):
    endpoint, _ = house.webhooks.create("default", URL)
    for _ in range(60):
        house.cancellation.cancel(house.submit().id)
    receivers = [FakeReceiver() for _ in range(4)]
    together = threading.Barrier(4)

    def herder(receiver):
        database = Database(house.settings.database)
        own = house.on(database)
        deliverer = own.new_deliverer(receiver, at_once=8, each=4)
        together.wait()
        for _ in range(200):
            deliverer.step(0)
        database.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(herder, one) for one in receivers]:
            done.result()
    ids = [one for receiver in receivers for one in receiver.ids]
    assert len(ids) == len(set(ids)) == 60
    states = {one.state for one in house.webhooks.deliveries.page(endpoint.id).items}
    assert states == {"delivered"}


def test_an_endpoint_is_deleted_with_all_that_was_to_be_sent(house, deliverer, receiver):
    endpoint, _ = house.webhooks.create("default", URL)
    house.cancellation.cancel(house.submit().id)
    row = {"kind": "order.failed", "data": {}, "subject": "late", "now_us": house.now_us}
    house.webhooks.delete(endpoint.id)
    with house.database.read() as connection:
        assert connection.execute(select(webhook_delivery)).all() == []
    # An order that ended just then may have found it still there.
    with house.database.write() as connection:
        events.queue_for(connection, endpoint.id, *row.values())
    work_off(deliverer)
    assert receiver.requests == []
    with house.database.read() as connection:
        (left,) = connection.execute(select(webhook_delivery)).all()
    assert (left.state, left.trouble) == ("dead", "disabled")
    with pytest.raises(WebhookNotFound):
        house.webhooks.get(endpoint.id)


def test_what_is_old_is_forgotten_and_what_is_pending_never(house, receiver):
    deliverer = house.new_deliverer(receiver, keep_s=86_400)
    endpoint, _ = house.webhooks.create("default", URL)
    receiver.replies = [Reply(200), Reply(500), Reply(410)]
    for _ in range(2):
        house.cancellation.cancel(house.submit().id)
    work_off(deliverer)
    assert not deliverer.forget()
    assert len(house.webhooks.deliveries.page(endpoint.id).items) == 2
    house.now_us += DAY_US + 1
    assert not deliverer.forget()
    with house.database.read() as connection:
        (left,) = connection.execute(select(webhook_delivery.c.state)).scalars()
    assert left == "pending"


def test_a_backlog_of_old_messages_is_forgotten_a_bounded_number_at_once(house, receiver):
    deliverer = house.new_deliverer(receiver, keep_s=86_400)
    endpoint, _ = house.webhooks.create("default", URL)
    for _ in range(5):
        house.cancellation.cancel(house.submit().id)
    work_off(deliverer)
    house.now_us += DAY_US + 1
    left = []
    for _ in range(3):
        more = deliverer.forget(2)
        left.append((more, len(house.webhooks.deliveries.page(endpoint.id).items)))
    assert left == [(True, 3), (True, 1), (False, 0)]


BAD = {
    "it says nothing of an order": '{"account": "default", "tags": {}}',
    "its order is none": '{"account": "default", "order": 5, "tags": {}}',
    "it has no tags": '{"account": "default", "order": null}',
    "it is no object": "[1]",
    "it is a number": "5",
}
DAMAGED = {
    "it is no JSON": '{"order": ',
    "it holds no number": '{"order": null, "tags": {"x": NaN}}',
}


@pytest.mark.parametrize("how", [*BAD, *DAMAGED])
def test_a_message_that_cannot_be_read_is_dead_and_stops_no_other(house, deliverer, receiver, how):
    if how in DAMAGED and not house.settings.database.startswith("sqlite"):
        pytest.skip("PostgreSQL keeps no JSON that is none")
    types = ["order.cancelled", "message.created"]
    endpoint, _ = house.webhooks.create("default", URL, types=types, include_text=True)
    other, _ = house.webhooks.create("default", URL + "/other", types=types)
    house.send(Action="Balance")
    broken = next(
        one
        for one in house.webhooks.deliveries.page(endpoint.id).items
        if one.type == "message.created"
    )
    house.cancellation.cancel(house.submit().id)
    with house.database.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE webhook_delivery SET data = '{(BAD | DAMAGED)[how]}' WHERE id = '{broken.id}'"
        )
    work_off(deliverer)
    found = {one.id: one for one in house.webhooks.deliveries.page(endpoint.id).items}
    dead = found.pop(broken.id)
    assert (dead.state, dead.trouble, dead.tries) == ("dead", "unreadable", 1)
    assert {one.state for one in found.values()} == {"delivered"}
    assert {one.state for one in house.webhooks.deliveries.page(other.id).items} == {"delivered"}
    assert house.webhooks.get(endpoint.id).failing_since_us is None, "the receiver is not to blame"
    assert deliverer.under_way == 0

    with house.database.write() as connection:
        said = '{"account": "default", "order": null, "tags": {}}'
        connection.exec_driver_sql(
            f"UPDATE webhook_delivery SET data = '{said}' WHERE id = '{broken.id}'"
        )
    assert house.webhooks.deliveries.replay(endpoint.id) == 1
    work_off(deliverer)
    assert house.webhooks.deliveries.get(endpoint.id, broken.id).state == "delivered"


def test_one_that_breaks_what_reads_it_is_dead_and_stops_no_other(house, deliverer, monkeypatch):
    endpoint, _ = house.webhooks.create("default", URL)
    for _ in range(2):
        house.cancellation.cancel(house.submit().id)
    broken = house.webhooks.deliveries.page(endpoint.id).items[0]
    make = deliverer_module.make_request

    def breaking(one, *rest):
        if one.id == broken.id:
            raise KeyError("unforeseen")
        return make(one, *rest)

    monkeypatch.setattr(deliverer_module, "make_request", breaking)
    work_off(deliverer)
    states = {one.id: one.state for one in house.webhooks.deliveries.page(endpoint.id).items}
    assert states.pop(broken.id) == "dead"
    assert set(states.values()) == {"delivered"}


def test_one_that_happened_at_no_time_is_dead_and_stops_no_other(house, deliverer):
    endpoint, _ = house.webhooks.create("default", URL)
    for _ in range(2):
        house.cancellation.cancel(house.submit().id)
    broken = house.webhooks.deliveries.page(endpoint.id).items[0]
    with house.database.write() as connection:
        connection.execute(
            update(webhook_delivery)
            .where(webhook_delivery.c.seq == broken.seq)
            .values(created_us=-(2**60))
        )
    work_off(deliverer)
    states = {one.id: one.state for one in house.webhooks.deliveries.page(endpoint.id).items}
    assert states.pop(broken.id) == "dead"
    assert set(states.values()) == {"delivered"}


def test_messages_are_replayed_by_one_by_time_and_delivered_ones_too(house, deliverer, receiver):
    endpoint, _ = house.webhooks.create("default", URL)
    for _ in range(5):
        house.cancellation.cancel(house.submit().id)
        work_off(deliverer)
        house.now_us += 1_000_000
    found = house.webhooks.deliveries.page(endpoint.id).items
    assert house.webhooks.deliveries.replay(endpoint.id, message=found[0].id) == 1
    assert house.webhooks.deliveries.replay(endpoint.id, message=found[0].id) == 0, (
        "it is pending already"
    )
    middle = {"since_us": found[3].created_us, "until_us": found[1].created_us}
    assert house.webhooks.deliveries.replay(endpoint.id, **middle) == 0, "none of them is dead"
    assert house.webhooks.deliveries.replay(endpoint.id, delivered=True, **middle) == 2
    work_off(deliverer)
    again = [receiver.ids.count(one.id) for one in found]
    assert again == [2, 1, 2, 2, 1]


def test_a_message_of_the_inbox_is_told_to_who_listens_to_those(house, deliverer, receiver):
    house.webhooks.create("default", URL, types=["message.created"])
    house.webhooks.create("default", URL + "/text", types=["message.created"], include_text=True)
    house.webhooks.create("default", URL + "/orders")
    house.send(Action="Info")
    worker = house.worker()
    house.ask(500)
    worker.finish(house.dispatched())
    work_off(deliverer)
    told = {}
    for request in receiver.requests:
        told.setdefault(request.url.removeprefix(URL), []).append(sent(request))
    assert [one["type"] for one in told["/orders"]] == ["order.completed"]
    kept = read_inbox(house.database, "default", 0, 10)
    for where, shown in (("", False), ("/text", True)):
        found = sorted(told[where], key=lambda one: one["data"]["seq"])
        assert {one["type"] for one in found} == {"message.created"}
        info, answer = (one["data"] for one in found)
        assert (info["account"], info["order"], info["tags"]) == ("default", None, kept[0].tags)
        assert answer["in_reply_to"] == kept[1].in_reply_to
        assert answer["tags"].get("Data") == (kept[1].tags["Data"] if shown else None)
        assert "text_deleted" not in info
    assert len(set(receiver.ids)) == len(receiver.ids) == 5


def test_what_may_not_be_is_refused_by_name(house):
    for url in ("http://ada.example/", "https://127.0.0.1/", "https://ada@ada.example/", "x"):
        with pytest.raises(InvalidWebhook):
            house.webhooks.create("default", url)
    with pytest.raises(InvalidWebhook, match="must be some of"):
        house.webhooks.create("default", URL, types=["order.begun"])
    with pytest.raises(InvalidWebhook):
        house.webhooks.create("default", URL, types=[])
    with pytest.raises(AccountNotFound):
        house.webhooks.create("nobody", URL)
    for _ in range(10):
        made, _ = house.webhooks.create("default", URL)
    with pytest.raises(InvalidWebhook, match="10 webhooks"):
        house.webhooks.create("default", URL)
    house.fund(1, "ada")
    for step in (
        house.webhooks.get,
        house.webhooks.rotate,
        house.webhooks.disable,
        house.webhooks.enable,
        house.webhooks.delete,
        house.webhooks.deliveries.test,
        house.webhooks.deliveries.page,
        house.webhooks.deliveries.replay,
    ):
        with pytest.raises(WebhookNotFound):
            step(made.id, account="ada")
    with pytest.raises(InvalidRequest, match="state"):
        house.webhooks.deliveries.page(made.id, state="lost")
    with pytest.raises(InvalidRequest, match="limit"):
        house.webhooks.deliveries.page(made.id, limit=0)
    with pytest.raises(WebhookNotFound):
        house.webhooks.deliveries.get(made.id, "msg_none")


def test_a_backlog_of_one_endpoint_hides_no_other(house, receiver):
    house.fund(1000, "ada")
    full, _ = house.webhooks.create("default", URL)
    house.webhooks.create("ada", URL + "/ada")
    rows = [
        events._row(full.id, "order.failed", {}, f"order {number}", house.now_us)
        for number in range(2 * claim_sql.LOOKED_AT + 50)
    ]
    with house.database.write() as connection:
        delivery_sql.add_deliveries(connection, rows)
        connection.execute(update(webhook_delivery).values(due_us=house.now_us - 5))
    house.cancellation.cancel(house.submit(account="ada").id)
    receiver.later = []
    deliverer = house.new_deliverer(receiver, at_once=8, each=3)
    deliverer.step(0)
    assert sorted(one.url for one in receiver.requests) == [URL] * 3 + [URL + "/ada"]
    # And while the full one's places are taken, nobody writes for nothing.
    house.now_us += 1_000_000
    asked = statements(lambda: deliverer.step(0))
    assert not [one for one in asked if "UPDATE" in one]
    house.cancellation.cancel(house.submit(account="ada").id)
    deliverer.step(0)
    assert [one.url for one in receiver.requests[4:]] == [URL + "/ada"]
