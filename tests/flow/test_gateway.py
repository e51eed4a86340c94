"""Orders over HTTP: a real socket, a real herder and workers, keys of several accounts."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.running import HERD
from tests.support.wait import wait_for

SECRET = "Zanzibar"
"""A word of the prompts here that no log may hold."""


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


@pytest.fixture
def web(herd, key):
    _, url = herd.start_gateway()
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:
        yield client


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def events(client, order, last=None, until=None, found=None):
    """The server-sent events of an order: (kind, data, id) each, into `found` as they come."""
    found = [] if found is None else found
    kind, identity = None, None
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", f"/v1/orders/{order}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                identity = value
            elif name == "data":
                found.append((kind, json.loads(value), identity))
            elif line == "":
                kind, identity = None, None  # the id comes before the data
                if until and until(found):
                    break
    return found


def text_of(found):
    return "".join(data["text"] for kind, data, _ in found if kind == "text")


def test_an_order_is_taken_waited_for_and_paid(herd, web, key):
    herd.start_worker()
    body = {"prompt": f"What is {SECRET}?", "tokens": 20, "fee": 50, "reference": "mine"}
    taken = web.post("/v1/orders", json=body)
    assert taken.status_code == 202, taken.text
    order = taken.json()["id"]
    assert taken.headers["location"] == f"/v1/orders/{order}"
    assert taken.json()["receipt"]["held"] in (50, 0)

    done = web.get(f"/v1/orders/{order}", params={"wait": 60}).json()
    assert done["state"] == "completed"
    assert len(done["text"].split()) == 20
    assert done["finish_reason"] == "length"
    assert done["usage"]["generated"] == 20
    receipt = done["receipt"]
    assert (receipt["fee"], receipt["charged"], receipt["reference"]) == (50, 50, "mine")
    assert receipt == herd.client.receipt(order).to_dict()

    account = web.get("/v1/account").json()
    assert account["available"] == 1_000_000 - 50
    assert (account["key"]["held"], account["key"]["charged"]) == (0, 50)
    entries = web.get("/v1/account/statement").json()["entries"]
    assert [one["kind"] for one in entries] == ["deposit", "hold", "charge"]
    assert entries[-1]["order"] == order
    assert SECRET not in herd.logs
    assert key.split("_", 2)[2] not in herd.logs
    assert done["text"] not in herd.logs


def test_while_it_waits_its_place_is_told_and_it_may_be_bid_for_and_cancelled(herd, web):
    first, second = (
        web.post("/v1/orders", json={"prompt": "Hi", "tokens": 10, "fee": fee}).json()
        for fee in (20, 30)
    )
    assert second["queue"] == {
        "place": 1,
        "place_exact": True,
        "wait_s": None,
        "waiting_for_workers": True,
    }
    assert web.get(f"/v1/orders/{first['id']}").json()["queue"]["place"] == 2
    raised = web.post(f"/v1/orders/{first['id']}/rebid", json={"fee": 60})
    assert raised.json()["fee"] == 60
    assert web.get(f"/v1/orders/{first['id']}").json()["queue"]["place"] == 1
    refused = web.post(f"/v1/orders/{first['id']}/rebid", json={"fee": 5})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "rebid_too_low")

    for one in (first, second):
        assert web.post(f"/v1/orders/{one['id']}/cancel").json()["state"] == "cancelled"
    assert web.get("/v1/account").json()["available"] == 1_000_000
    page = web.get("/v1/orders", params={"limit": 1}).json()
    assert [one["order"] for one in page["orders"]] == [second["id"]]
    page = web.get("/v1/orders", params={"limit": 1, "before": page["next"]}).json()
    assert [one["order"] for one in page["orders"]] == [first["id"]]
    assert page["next"] is None, "the last page is full, and the last all the same"
    assert web.get("/v1/orders", params={"state": "queued"}).json()["orders"] == []


def test_the_same_key_is_the_same_order_charged_once(herd, web):
    body = {"prompt": "Hi", "tokens": 10, "fee": 20}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: web.post("/v1/orders", json=body, headers={"Idempotency-Key": "k"}),
                range(8),
            )
        )
    assert {one.status_code for one in answers} == {202}
    assert len({one.json()["id"] for one in answers}) == 1
    assert web.get("/v1/account").json()["held"] == 20
    other = web.post("/v1/orders", json=body | {"fee": 21}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_events_tell_place_start_text_end_and_receipt(herd, web):
    order = web.post("/v1/orders", json={"prompt": "Tell me", "tokens": 30, "fee": 90}).json()["id"]
    heard = []
    reading = threading.Thread(target=events, args=(web, order), kwargs={"found": heard})
    reading.start()
    wait_for(lambda: heard, "it is told its place")
    herd.start_worker(HERD_STUB_STEP_MS="20")
    reading.join(timeout=60)
    kinds = [kind for kind, _, _ in heard]
    assert kinds[0] == "place"
    assert [kind for kind in kinds if kind not in ("place", "text")] == ["start", "end", "receipt"]
    assert kinds.count("text") > 3
    assert text_of(heard) == web.get(f"/v1/orders/{order}").json()["text"]
    (receipt,) = (data for kind, data, _ in heard if kind == "receipt")
    assert receipt == herd.client.receipt(order).to_dict()


def test_a_stream_goes_on_where_it_was_cut_even_on_another_gateway(herd, web, key):
    herd.start_worker(HERD_STUB_STEP_MS="40")
    order = web.post("/v1/orders", json={"prompt": "Tell me", "tokens": 60, "fee": 90}).json()["id"]
    first = events(web, order, until=lambda found: len(text_of(found)) > 40)
    *_, last = (identity for kind, _, identity in first if kind == "text")
    had = text_of(first)
    _, url = herd.start_gateway()
    with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as other:
        rest = events(other, order, last=last)
        whole = other.get(f"/v1/orders/{order}").json()["text"]
        assert had + text_of(rest) == whole
        assert "restart" not in [kind for kind, _, _ in rest]
        again = events(other, order, last=last)
        assert had + text_of(again) == whole, "also after the end"
        assert text_of(events(other, order)) == whole


def test_a_lost_worker_is_told_as_a_restart(herd, web):
    worker = herd.start_worker(HERD_STUB_STEP_MS="40")
    body = {"prompt": "Tell me", "tokens": 300, "fee": 400}
    order = web.post("/v1/orders", json=body).json()["id"]
    heard = []
    reading = threading.Thread(target=events, args=(web, order), kwargs={"found": heard})
    reading.start()
    wait_for(lambda: text_of(heard), "it is told the first words")
    worker.kill()
    herd.start_worker()
    reading.join(timeout=60)
    kinds = [kind for kind, _, _ in heard]
    assert kinds.count("restart") == 1
    after = heard[kinds.index("restart") :]
    assert text_of(after) == web.get(f"/v1/orders/{order}").json()["text"]


def test_keys_scopes_and_other_peoples_orders(herd, web, key):
    order = web.post("/v1/orders", json={"prompt": "Hi", "tokens": 10, "fee": 20}).json()["id"]
    herd.client.accounts.create("ada")
    reader, theirs = herd.client.api_keys.create("ada", scopes=["read"])

    def code(answer):
        return answer.status_code, answer.json()["error"]["code"]

    assert code(httpx.get(f"{web.base_url}/v1/account")) == (401, "unauthorized")
    wrong = web.get("/v1/account", headers=bearer("herd_nonsense"))
    assert code(wrong) == (401, "unauthorized")
    assert wrong.headers["www-authenticate"].startswith("Bearer")
    body = {"prompt": "Hi", "tokens": 10}
    assert code(web.post("/v1/orders", json=body, headers=bearer(theirs))) == (403, "forbidden")
    for path in (f"/v1/orders/{order}", f"/v1/orders/{order}/events"):
        assert code(web.get(path, headers=bearer(theirs))) == (404, "order_not_found")
    _, buyer = herd.client.api_keys.create("ada", scopes=["buy"])
    for path in ("cancel", "rebid"):
        answer = web.post(f"/v1/orders/{order}/{path}", headers=bearer(buyer), json={"fee": 99})
        assert code(answer) == (404, "order_not_found")
    assert code(web.post("/v1/orders", json=body, headers=bearer(buyer))) == (
        402,
        "insufficient_balance",
    )
    herd.client.api_keys.revoke(reader.id)
    assert code(web.get("/v1/account", headers=bearer(theirs))) == (401, "unauthorized")
    assert herd.client.receipt(order).state == "queued"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"tokens": 10}, 400, "invalid_prompt"),
        ({"prompt": "", "tokens": 10}, 400, "invalid_prompt"),
        ({"prompt": "a\ud800", "tokens": 10}, 400, None),
        ({"prompt": "Hi", "tokens": 0}, 400, "invalid_tokens"),
        ({"prompt": "Hi", "tokens": 1.5}, 400, "invalid_request"),
        ({"prompt": "Hi", "tokens": 10**400}, 400, None),
        ({"prompt": "Hi", "tokens": 10, "fee": 5}, 402, "fee_too_low"),
        ({"prompt": "Hi", "tokens": 10, "max_fee": 5}, 402, "fee_above_max"),
        ({"prompt": "Hi", "tokens": 10, "model": "none"}, 404, "model_not_found"),
        ({"prompt": "Hi", "tokens": 10, "tools": []}, 400, "invalid_request"),
        ({"prompt": "Hi", "tokens": 10, "multiplier": "x"}, 400, "invalid_multiplier"),
        ({"prompt": "Hi", "tokens": 10, "sampling": {"top_p": 7}}, 400, "invalid_sampling"),
        ({"prompt": "Hi", "tokens": 10, "sampling": {"logit_bias": {"a": 1}}}, 400, None),
        ({"prompt": "Hi", "tokens": 10, "start_by": "soon"}, 400, "invalid_start_by"),
        ([], 400, "invalid_request"),
        (None, 400, "invalid_request"),
    ],
)
def test_bad_input_is_one_sentence_and_costs_nothing(shared_web, body, status, code):
    answer = shared_web.post("/v1/orders", content=json.dumps(body), headers={
        "Content-Type": "application/json"
    })  # fmt: skip
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"].endswith(".")
    assert code is None or error["code"] == code
    assert shared_web.get("/v1/account").json()["held"] == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"tokens": NaN, "prompt": "x"}',
        b'{"tokens": 1e999, "prompt": "x"}',
        b'{"tokens": ' + b"9" * 5000 + b', "prompt": "x"}',
        b'{"prompt": "x", "tokens": 3, "sampling": {"temperature": Infinity}}',
        b'{"messages": [{"role": "user"}], "tokens": 3}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/orders", "/v1/quotes", "/v1/chat/completions"])
def test_hostile_bodies_are_refused(shared_web, path, content):
    answer = shared_web.post(path, content=content, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]


def test_a_body_that_is_too_long_is_not_read(shared_web):
    answer = shared_web.post("/v1/orders", content=b"x" * 2_000_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_long")
    chunks = (b"x" * 100_000 for _ in range(20))
    answer = shared_web.post("/v1/orders", content=chunks)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_long")


def test_what_is_not_there_is_told_in_the_same_form(shared_web):
    for method, path, status in (("GET", "/nowhere", 404), ("DELETE", "/v1/orders", 405)):
        answer = shared_web.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] in ("not_found", "method_not_allowed")


def test_a_signed_receipt_is_checked_offline(herd, web, tmp_path):
    herd.start_worker()
    body = {"prompt": "Hi", "tokens": 10, "fee": 20}
    order = web.post("/v1/orders", json=body).json()["id"]
    web.get(f"/v1/orders/{order}", params={"wait": 60})
    answer = web.get(f"/v1/orders/{order}/receipt")
    assert answer.headers["content-type"] == "application/jose"
    keys, receipt = tmp_path / "jwks.json", tmp_path / "receipt.jws"
    keys.write_bytes(httpx.get(f"{web.base_url}/.well-known/jwks.json").content)
    receipt.write_text(answer.text + "\n")

    def verify():
        arguments = ["receipt", "verify", str(receipt), "--keys", str(keys)]
        nowhere = {"HERD_HOME": str(tmp_path / "nowhere")}
        child = herd.start(f"verify{time.monotonic_ns()}", arguments, HERD, **nowhere)
        return child.ended(), child.log

    assert verify() == (
        0,
        f"Genuine: order {order} of default is completed, charged 20 of 20 winston.\n",
    )
    head, claims, signature = answer.text.split(".")
    receipt.write_text(f"{head}.{claims[:-8]}AAAAAAAA.{signature}")
    code, said = verify()
    assert code == 2
    assert "changed" in said


def test_quotes_info_and_models(herd, web):
    quote = web.post("/v1/quotes", json={"prompt": "What is the meaning of life?", "tokens": 20})
    assert quote.json()["needed"] == 27
    info = web.get("/v1/info").json()
    assert info["default_model"] == "stub"
    (model,) = web.get("/v1/models").json()["data"]
    assert (model["id"], model["default_tokens"]) == ("stub", 0)


def test_ready_means_that_orders_would_run(herd, web):
    assert web.get("/healthz").json() == {"status": "ok"}
    waiting = web.get("/readyz")
    assert waiting.status_code == 503
    assert "worker" in waiting.json()["checks"]["worker"]
    herd.start_worker()
    wait_for(lambda: web.get("/readyz").status_code == 200, "it is ready")


def test_a_gateway_that_is_told_to_stop_cuts_its_lines_and_ends(herd, key):
    gateway, url = herd.start_gateway()
    with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as client:
        body = {"prompt": "Hi", "tokens": 10, "fee": 20}
        order = client.post("/v1/orders", json=body).json()["id"]
        with client.stream("GET", f"/v1/orders/{order}/events") as answer:
            next(answer.iter_lines())
            assert gateway.stop() == 0
    assert herd.client.receipt(order).state == "queued", "the order goes on"


def test_the_port_that_is_taken_is_one_line(herd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = herd.start("gateway", ["gateway", "--port", str(port)], HERD)
        assert child.ended() == 2
    assert "HERD_GATEWAY_PORT" in child.log.splitlines()[-1]
    assert "Traceback" not in child.log


def test_a_caller_who_speaks_no_http_harms_nobody(shared_web):
    at = urlsplit(str(shared_web.base_url))
    with socket.create_connection((at.hostname, at.port)) as line:
        line.sendall(b"\x16\x03\x01\x00\xff" * 100 + b"\r\n\r\n")
        line.settimeout(30)
        while line.recv(1000):
            pass
    assert shared_web.get("/healthz").status_code == 200
