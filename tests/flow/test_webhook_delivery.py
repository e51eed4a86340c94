"""Webhooks from real herders to a real socket, whatever the receiver does and whoever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import cycle

import httpx
import pytest
from standardwebhooks import Webhook

from tests.support.receiver import Receiver, holds, says
from tests.support.running import HERD
from tests.support.wait import wait_for

SECRET = "Zanzibar"
"""A word of the prompts here that no log may hold."""

QUICK = {
    "HERD_WEBHOOK_ALLOW_HTTP": "true",
    "HERD_WEBHOOK_TIMEOUT_S": "2",
    "HERD_WEBHOOK_RETRIES_S": ",".join(["1"] * 40),
}
PATIENT = {"HERD_WEBHOOK_TIMEOUT_S": "30"}
"""For a receiver that answers, be it late: what is sent arrives at the first try."""
HERE = {**QUICK, "HERD_WEBHOOK_ALLOW_NETWORKS": "127.0.0.1"}


def typed(herd, *words):
    """The JSON document of a command that succeeds."""
    command = [sys.executable, *HERD, *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=herd.env, cwd=herd.folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def deliveries(herd, webhook):
    return typed(herd, "webhooks", "show", webhook, "--limit", "100")["deliveries"]


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def test_every_end_arrives_signed_through_a_bad_receiver_and_killed_herders(make_herd):
    herd = make_herd(**HERE)
    herder = herd.start_herder()
    herd.start_worker(HERD_SLOTS="4")
    receiver = Receiver()
    url = f"http://127.0.0.1:{receiver.port}/herd"
    made = typed(herd, "webhooks", "create", "default", url, "--include-text")
    webhook, secret = made["id"], made["secret"]
    receiver.close()

    # It is down while the first orders end.
    done = [herd.submit(f"What is {SECRET}?", 5) for _ in range(4)]
    for order in done:
        order.result(timeout=60)
    wait_for(lambda: "webhook_failed" in herder.log, "the receiver that is down is noticed")

    # It comes back, and does everything wrong, in turn.
    elsewhere = Receiver()
    receiver = Receiver(receiver.port)
    troubles = cycle(
        [
            says(500),
            says(302, f"Location: http://127.0.0.1:{elsewhere.port}/"),
            says(429, "Retry-After: 1"),
            holds,
            lambda line, _taken: line.close(),
        ]
    )
    receiver.behave = lambda line, taken: next(troubles)(line, taken)
    done += [herd.submit(f"And {SECRET} {number}?", 5) for number in range(6)]
    for order in done:
        order.result(timeout=60)
    wait_for(lambda: len(receiver.taken) >= 10, "it is tried again")

    # Both herders are killed while they send; others take their place.
    second = herd.start_herder()
    receiver.behave = holds
    had = len(receiver.taken)
    wait_for(lambda: len(receiver.taken) > had, "something is on its way")
    herder.kill()
    second.kill()
    cancelled = herd.submit("Never begun", 5, start_by="2099-01-01T00:00:00Z")
    herd.client.cancel(cancelled.id)
    herd.start_herder()
    herd.start_herder()
    receiver.behave = says(200)

    ended = {order.id for order in [*done, cancelled]}

    def all_delivered():
        found = deliveries(herd, webhook)
        assert {one["subject"] for one in found} <= ended
        assert "dead" not in {one["state"] for one in found}
        return len(found) == len(ended) and {one["state"] for one in found} == {"delivered"}

    wait_for(all_delivered, "every end is delivered", limit_s=120)
    ids: dict[str, set[str]] = {}
    for taken in receiver.taken:
        document = Webhook(secret).verify(taken.body, taken.headers)
        ids.setdefault(document["data"]["order"], set()).add(taken.id)
        state = document["type"].removeprefix("order.")
        assert document["data"]["receipt"]["state"] == state
        order = document["data"]["order"]
        assert document["data"]["text"] == herd.client.answer(order).text
    assert set(ids) == ended
    assert {len(one) for one in ids.values()} == {1}, "none comes twice with another id"
    assert elsewhere.connections == 0, "redirects are not followed"
    elsewhere.close()
    receiver.close()
    for secrets in (SECRET, secret.removeprefix("whsec_"), url):
        assert secrets not in herd.logs


def test_a_name_of_this_machine_gets_nothing_unless_it_is_allowed(make_herd, receiver):
    herd = make_herd(**{**QUICK, **PATIENT})
    herder = herd.start_herder()
    url = f"http://localhost:{receiver.port}/"
    webhook = typed(herd, "webhooks", "create", "default", url)["id"]
    herd.client.cancel(herd.submit().id)

    def refused():
        (one,) = deliveries(herd, webhook)
        return one["tries"] and one

    one = wait_for(refused, "it is tried")
    assert (one["trouble"], one["status"]) == ("address_refused", None)
    assert receiver.connections == 0

    herder.stop()
    herd.env["HERD_WEBHOOK_ALLOW_NETWORKS"] = "127.0.0.0/8, ::1"
    herd.start_herder()
    wait_for(lambda: receiver.taken, "it is allowed, and arrives")
    tried = typed(herd, "webhooks", "test", webhook)
    assert (tried["state"], tried["status"]) == ("delivered", 204)


def test_an_accounts_own_program_manages_its_webhooks_over_http(make_herd, receiver):
    herd = make_herd(**{**HERE, **PATIENT})
    herd.start_herder()
    _, url = herd.start_gateway()
    keys = {
        name: herd.client.api_keys.create("default", scopes=scopes)[1]
        for name, scopes in {"buy": ("buy", "read"), "read": ("read",)}.items()
    }
    herd.client.accounts.create("eve")
    _, keys["eve"] = herd.client.api_keys.create("eve")
    buyer, reader, eve = (
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        for key in keys.values()
    )
    body = {"url": f"http://127.0.0.1:{receiver.port}/", "types": ["order.cancelled"]}
    assert reader.post("/v1/webhooks", json=body).status_code == 403
    made = buyer.post("/v1/webhooks", json=body)
    assert made.status_code == 201, made.text
    webhook, secret = made.json()["id"], made.json()["secret"]
    path = f"/v1/webhooks/{webhook}"
    (listed,) = reader.get("/v1/webhooks").json()["webhooks"]
    assert listed == reader.get(path).json()
    assert "secret" not in listed
    assert (listed["url"], listed["types"]) == (body["url"], body["types"])
    assert eve.get("/v1/webhooks").json() == {"webhooks": []}
    assert eve.get(path).json()["error"]["code"] == "webhook_not_found"
    for wrong in (
        {"url": "http://10.0.0.1/"},
        {"url": "ftp://ada.example/"},
        {"url": body["url"], "types": ["order.begun"]},
    ):
        refused = buyer.post("/v1/webhooks", json=wrong)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_webhook")

    order = buyer.post("/v1/orders", json={"prompt": "Hi", "tokens": 5}).json()["id"]
    buyer.post(f"/v1/orders/{order}/cancel")
    wait_for(lambda: receiver.taken, "it is told")
    told = Webhook(secret).verify(receiver.taken[0].body, receiver.taken[0].headers)
    assert (told["type"], told["data"]["order"]) == ("order.cancelled", order)

    other = buyer.post(f"{path}/rotate").json()["secret"]
    message = buyer.post(f"{path}/test").json()["message"]
    wait_for(lambda: message in receiver.ids, "the test arrives")
    for one in (secret, other):
        Webhook(one).verify(receiver.taken[-1].body, receiver.taken[-1].headers)

    def settled():
        found = reader.get(f"{path}/deliveries").json()["deliveries"]
        return [one["state"] for one in found] == ["delivered", "delivered"]

    wait_for(settled, "both are written down")
    page = reader.get(f"{path}/deliveries", params={"limit": 1}).json()
    assert [one["type"] for one in page["deliveries"]] == ["webhook.test"]
    page = reader.get(f"{path}/deliveries", params={"limit": 1, "before": page["next"]}).json()
    assert [one["subject"] for one in page["deliveries"]] == [order]
    assert page["next"] is None
    assert reader.post(f"{path}/replay", json={}).status_code == 403
    again = buyer.post(f"{path}/replay", json={"message": page["deliveries"][0]["id"]})
    assert again.json() == {"replayed": 1}
    wait_for(lambda: receiver.ids.count(receiver.ids[0]) == 2, "it comes again")
    assert buyer.post(f"{path}/replay", json={"since": "2026-01-01T00:00:00"}).status_code == 400
    assert buyer.post(f"{path}/replay").json() == {"replayed": 0}

    assert buyer.post(f"{path}/disable").json()["why"] == "asked"
    assert buyer.post(f"{path}/test").status_code == 400
    assert buyer.post(f"{path}/enable").json()["enabled"]
    assert eve.delete(path).status_code == 404
    assert buyer.delete(path).json() == {"id": webhook, "deleted": True}
    assert buyer.get(path).status_code == 404
    for client in (buyer, reader, eve):
        client.close()


def test_a_receiver_that_never_answers_holds_up_no_settlement(make_herd, receiver):
    herd = make_herd(**{**HERE, "HERD_WEBHOOK_TIMEOUT_S": "60", "HERD_WEBHOOK_AT_ONCE": "2"})
    herder = herd.start_herder()
    herd.start_worker()
    receiver.behave = holds
    typed(herd, "webhooks", "create", "default", f"http://127.0.0.1:{receiver.port}/")
    herd.submit().result(timeout=60)
    wait_for(lambda: receiver.taken, "it is sent, and not answered")
    for _ in range(5):
        assert herd.submit().result(timeout=60).receipt.state == "completed"
    assert len(receiver.taken) == 1, "one at a time for each endpoint, where two go at once"
    assert herder.stop() == 0
