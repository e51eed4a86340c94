"""The original's messages over HTTP: a client written for it, and what else an inbox must do."""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor

import httpx
import pytest

from herder.examples.messages import connect, receive, send

FUNDS = 1_000_000


class LlamaClient:
    """What a program written for the original does: it sends, and handles what comes.

    Prices as the original's client did, from what `Info` said; answers go to the handler of their
    reference.
    """

    def __init__(self, herd: httpx.Client) -> None:
        self._herd = herd
        self.info: dict[str, str] = {}
        self.balance: dict[str, str] = {}
        self.back: list[dict[str, str]] = []
        self.answers: list[dict[str, str]] = []
        self._reference = 0
        self._callbacks: dict[str, Callable[[str], None]] = {}
        self._came: queue.Queue[None] = queue.Queue()
        threading.Thread(target=self._receive, daemon=True).start()

    def ask(self, **tags: str) -> None:
        """Send what is answered at once."""
        send(self._herd, tags)
        self._came.get(timeout=60)

    def run(self, prompt, tokens, callback, multiplier=Fraction(1), **more):
        """Order a text; the fee that was offered."""
        words = len(re.findall("[0-9A-Za-z]+", prompt))
        needed = int(self.info["Base-Fee"]) + int(self.info["Token-Fee"]) * (words + tokens)
        fee = floor(needed * multiplier)
        reference = str(self._reference)
        self._reference += 1
        self._callbacks[reference] = callback
        send(
            self._herd,
            {
                "Action": "Transfer",
                "Recipient": "herder",
                "Quantity": str(fee),
                "X-Prompt": prompt,
                "X-Tokens": str(tokens),
                "X-Reference": reference,
                **{name.replace("_", "-"): value for name, value in more.items()},
            },
        )
        return fee

    def await_answers(self, count):
        """Wait until so many messages came since."""
        for _ in range(count):
            self._came.get(timeout=60)

    def _receive(self):
        try:
            for message in receive(self._herd):
                assert message["From"] == "herder"
                self._handle(message)
                self._came.put(None)
        except httpx.HTTPError:
            return  # the test is over

    def _handle(self, message):
        if message["Action"] == "Info-Response":
            self.info = message
        elif message["Action"] == "Balance-Response":
            self.balance = message
        elif message["Action"] == "Transfer":
            self.back.append(message)
        else:
            self.answers.append(message)
            self._callbacks.pop(message["X-Reference"])(message["Data"])


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


@pytest.fixture
def web(herd, key):
    _, url = herd.start_gateway()
    with connect(url, key) as client:
        yield client


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def inbox(web, **query):
    answer = web.get("/messages", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_client_written_for_the_original(herd, web):
    """Its fields, its order of service and its money, with one worker of one slot."""
    client = LlamaClient(web)
    client.ask(Action="Info")
    fields = ("Name", "Version", "Base-Fee", "Token-Fee", "Last-Multiplier", "Queue-Length", "Data")
    assert all(client.info[name] for name in fields)
    assert client.info["Queue-Length"] == "0"

    client.run("two words", 10, None, Fraction(1, 2), X_Reference="low")
    client.await_answers(1)
    (back,) = client.back
    assert (back["Recipient"], back["Quantity"]) == ("default", "6")
    assert (back["X-Reason"], back["X-Needed"]) == ("Insufficient payment", "13")

    texts: dict[str, str] = {}
    asked = {
        "cheap": ("What is it?", 20, Fraction(1), {}),
        "dear": ("What is the meaning of life?", 30, Fraction(3), {}),
        "stops": ("Say [[say:one two STOP three]]", 20, Fraction(2), {"X_Termination": "STOP"}),
        "later": ("Tell me a story", 25, Fraction(2), {}),
        "dearest": ("Now", 5, Fraction(7, 2), {}),
    }
    fees = {}
    for name, (prompt, tokens, multiplier, more) in asked.items():
        heard = lambda text, name=name: texts.__setitem__(name, text)  # noqa: E731
        fees[name] = client.run(prompt, tokens, heard, multiplier, **more)
    client.ask(Action="Info")
    assert client.info["Queue-Length"] == "5"
    client.ask(Action="Balance")
    assert int(client.balance["Held"]) == sum(fees.values())
    assert int(client.balance["Balance"]) == FUNDS - sum(fees.values())

    herd.start_worker(HERD_SLOTS="1", HERD_STUB_STEP_MS="10")
    client.await_answers(5)
    assert list(texts) == ["dearest", "dear", "stops", "later", "cheap"], "by price, then by age"
    assert {one["Action"] for one in client.answers} == {"Inference-Response"}
    assert texts["stops"].strip() == "one two"
    assert len(texts["dear"].split()) == 30
    charged = dict(zip(texts, (int(one["Charged"]) for one in client.answers), strict=True))
    assert {**charged, "stops": 0} == {**fees, "stops": 0}, "all was delivered, but for one"
    needed = Fraction(fees["stops"], 2)
    stopped = [ceil(2 * (needed - 20 + generated)) for generated in range(3, 6)]
    assert charged["stops"] in stopped
    client.ask(Action="Info")
    assert Fraction(client.info["Last-Multiplier"]) == 1
    client.ask(Action="Balance")
    assert client.balance["Held"] == "0"
    assert int(client.balance["Balance"]) == FUNDS - sum(charged.values())


def test_a_message_is_taken_and_named_by_its_answer(herd, web):
    sent = web.post("/messages", json={"Action": "Info"})
    assert (sent.status_code, sent.json()["order"]) == (202, None)
    as_it_was = [{"name": "Action", "value": "Balance"}, {"name": "Target", "value": "x"}]
    assert web.post("/messages", json=as_it_was).status_code == 202
    page = inbox(web)
    assert [one["seq"] for one in page["messages"]] == [1, 2]
    assert page["messages"][0]["in_reply_to"] == sent.json()["id"]
    assert page["next"] == 2
    assert inbox(web, after=1, limit=1)["messages"] == page["messages"][1:]
    assert inbox(web, after=2, wait=1) == {"messages": [], "next": 2}

    order = {"Action": "Transfer", "Recipient": "herder", "Quantity": "50"}
    order |= {"X-Prompt": "Why [[fail]]", "X-Tokens": "10"}
    answers = [
        web.post("/messages", json=order, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert web.get("/v1/account").json()["held"] == 50
    herd.start_worker()
    (failed,) = inbox(web, after=2, wait=60)["messages"]
    assert failed["order"] == answers[0].json()["order"]
    assert failed["tags"]["Action"] == "Inference-Failed"
    assert failed["tags"]["Returned"] == "50"
    assert inbox(web, after=3)["messages"] == []
    reused = web.post("/messages", json={"Action": "Info"}, headers={"Idempotency-Key": "k"})
    assert (reused.status_code, reused.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_whoever_holds_a_line_is_woken_on_any_gateway(herd, web, key):
    _, url = herd.start_gateway()
    found = []
    with connect(url, key) as other:
        for number in range(3):
            waiting = threading.Thread(
                target=lambda after=number: found.append(inbox(other, after=after, wait=60))
            )
            waiting.start()
            send(web, {"Action": "Info"})
            waiting.join(timeout=60)
    assert [page["next"] for page in found] == [1, 2, 3]


def test_a_cancelled_order_is_answered_at_once(herd, web):
    order = {"Action": "Transfer", "Recipient": "herder", "Quantity": "50"}
    order |= {"X-Prompt": "Why?", "X-Tokens": "10", "X-Reference": "mine"}
    taken = web.post("/messages", json=order).json()["order"]
    web.post(f"/v1/orders/{taken}/cancel")
    (message,) = inbox(web, wait=60)["messages"]
    assert message["tags"]["X-Reason"] == "It was cancelled."
    assert (message["tags"]["Returned"], message["tags"]["X-Reference"]) == ("50", "mine")


def test_money_between_accounts(herd, web):
    herd.client.accounts.create("ada")
    _, theirs = herd.client.api_keys.create("ada")
    pay = {"Action": "Transfer", "Recipient": "ada", "Quantity": "70", "X-Note": "thanks"}
    send(web, pay)
    (debit,) = inbox(web)["messages"]
    assert debit["tags"]["Action"] == "Debit-Notice"
    with connect(str(web.base_url), theirs) as hers:
        (credit,) = inbox(hers, wait=60)["messages"]
        assert (credit["tags"]["Sender"], credit["tags"]["X-Note"]) == ("default", "thanks")
        assert hers.get("/v1/account").json()["available"] == 70
        (entry,) = hers.get("/v1/account/statement").json()["entries"]
        assert (entry["kind"], entry["amount"]) == ("received", 70)


def events(client, last=None, count=1, opened=None):
    """Server-sent events of the inbox: (id, message) each, until there are so many.

    opened: an event that is set once the gateway has let the caller in.
    """
    found, identity = [], None
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", "/messages/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        if opened is not None:
            opened.set()
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                identity = value
            elif name == "data":
                found.append((identity, json.loads(value)))
                if len(found) == count:
                    break
    return found


def test_the_inbox_as_a_stream_goes_on_where_it_was_cut(herd, web, key):
    for _ in range(3):
        send(web, {"Action": "Info"})
    first = events(web, count=2)
    assert [identity for identity, _ in first] == ["1", "2"]
    _, url = herd.start_gateway()
    with connect(url, key) as other:
        heard = []
        reading = threading.Thread(target=lambda: heard.extend(events(other, last="2", count=2)))
        reading.start()
        send(web, {"Action": "Balance"})
        reading.join(timeout=60)
    assert [identity for identity, _ in heard] == ["3", "4"]
    assert heard[1][1]["tags"]["Action"] == "Balance-Response"
    assert [one for _, one in first + heard] == inbox(web)["messages"]


def test_a_stream_ends_when_its_key_is_revoked(herd, web):
    reader, shown = herd.client.api_keys.create("default", scopes=["read"])
    opened, ended = threading.Event(), threading.Event()

    def read():
        with connect(str(web.base_url), shown) as client:
            events(client, count=10, opened=opened)
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    assert opened.wait(60), "before that the key would not open the stream"
    send(web, {"Action": "Info"})
    herd.client.api_keys.revoke(reader.id)
    assert ended.wait(60)


def test_keys_scopes_and_other_peoples_inboxes(herd, web):
    herd.client.accounts.create("ada")
    _, reads = herd.client.api_keys.create("ada", scopes=["read"])
    _, buys = herd.client.api_keys.create("ada", scopes=["buy"])
    send(web, {"Action": "Info"})

    def code(answer):
        return answer.status_code, answer.json()["error"]["code"]

    assert web.get("/messages", headers=bearer(reads)).json() == {"messages": [], "next": 0}
    info = {"Action": "Info"}
    assert code(web.post("/messages", json=info, headers=bearer(reads))) == (403, "forbidden")
    for path in ("/messages", "/messages/events"):
        assert code(web.get(path, headers=bearer(buys))) == (403, "forbidden")
        assert code(httpx.get(f"{web.base_url}{path}")) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"Action": "Nonsense"}, "Action"),
        ({"Action": 5}, "Action"),
        ({}, "Action"),
        ([], "Action"),
        ("Info", None),
        (None, None),
        ({"Action": "Transfer", "Recipient": "herder", "Quantity": "50"}, "X-Prompt"),
        ({"Action": "Transfer", "Recipient": "herder", "Quantity": 50}, "Quantity"),
        ({"Action": "Info", "X-Some": "\ud800"}, "X-Some"),
    ],
)
def test_what_is_no_message_is_refused_in_the_one_form(shared_web, body, param):
    answer = shared_web.post(
        "/messages", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), answer.text
    assert error["code"] in ("invalid_message", "invalid_request")
    assert error["message"].endswith(".")
    assert inbox(shared_web)["messages"] == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b'{"Action": NaN}']
)
def test_hostile_messages_are_refused(shared_web, content):
    headers = {"Content-Type": "application/json"}
    answer = shared_web.post("/messages", content=content, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", f"after={2**70}", "limit=0", "limit=101", "wait=61", "wait=x"]
)
def test_a_query_that_is_out_of_bounds_is_refused(shared_web, query):
    answer = shared_web.get(f"/messages?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]
    bad = shared_web.get("/messages/events", headers={"Last-Event-ID": "x"})
    assert bad.status_code == 400
