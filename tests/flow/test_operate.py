"""Operators over HTTP: a real socket, keys with and without the scope, money that moves once."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import httpx
import pytest

from herder.clock import clock_us
from herder.db.tables import grants
from herder.domain.periods import Every, day_of, start_us
from tests.support.running import RunningHerd
from tests.support.wait import wait_for

ID = "2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11"


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory, redis_server):
    """A herd without a herder or a worker, which a gateway serves."""
    herd = RunningHerd(tmp_path_factory.mktemp("shop"), redis_server)
    _, url = herd.start_gateway()
    yield herd, url
    herd.close()
    herd.check()


@pytest.fixture
def operator(shop):
    herd, url = shop
    _, key = herd.client.api_keys.create("default", scopes=["operate"])
    with httpx.Client(base_url=url, headers=bearer(key), timeout=60) as client:
        yield client


@pytest.fixture
def opened(operator, request):
    """An account of this test's own."""
    name = request.node.name[5:60].rstrip("_-[]")
    name = "".join(char if char.isalnum() else "-" for char in name)
    assert operator.post("/v1/accounts", json={"name": name}).status_code == 201
    return name


ROUTES = [
    ("POST", "/v1/accounts", {"name": "eve"}),
    ("GET", "/v1/accounts", None),
    ("GET", "/v1/accounts/default", None),
    ("GET", "/v1/accounts/default/statement", None),
    ("PUT", "/v1/accounts/default/limits", {"max_open_orders": 1, "tokens_per_minute": 1}),
    ("POST", "/v1/accounts/default/deposits", {"amount": 5}),
    ("POST", "/v1/accounts/default/withdrawals", {"amount": 5}),
    ("POST", "/v1/accounts/default/keys", {}),
    ("GET", "/v1/accounts/default/keys", None),
    ("DELETE", "/v1/keys/0123456789abcdef", None),
    ("POST", "/v1/accounts/default/grants", {"amount": 5, "every": "day"}),
    ("GET", "/v1/accounts/default/grants", None),
    ("DELETE", f"/v1/grants/{ID}", None),
    ("POST", f"/v1/orders/{ID}/refunds", {"reason": "sorry"}),
    ("GET", "/v1/workers", None),
    ("POST", "/v1/workers/worker/drain", None),
]


def test_a_key_that_is_no_operators_does_none_of_it(shop):
    herd, url = shop
    _, buyer = herd.client.api_keys.create("default", scopes=["buy", "read"])
    before = herd.client.accounts.audit()
    with httpx.Client(base_url=url, timeout=60) as client:
        for method, path, body in ROUTES:
            answer = client.request(method, path, json=body, headers=bearer(buyer))
            assert code(answer) == (403, "forbidden"), path
            assert "operate" in answer.json()["error"]["message"]
            assert code(client.request(method, path, json=body)) == (401, "unauthorized"), path
        documented = client.get("/openapi.json").json()["paths"]
    assert herd.client.accounts.audit() == before
    # All that there is for operators is in the list above.
    tagged = {
        (method.upper(), path)
        for path, methods in documented.items()
        for method, about in methods.items()
        if "operators" in about["tags"]
    }
    assert len(tagged) == len(ROUTES)


def test_an_operators_key_buys_and_reads_nothing_by_itself(operator):
    assert code(operator.post("/v1/orders", json={"prompt": "Hi", "tokens": 5})) == (
        403,
        "forbidden",
    )
    assert code(operator.get("/v1/orders")) == (403, "forbidden")
    assert code(operator.get("/v1/account")) == (403, "forbidden")


def test_an_account_is_opened_filled_limited_and_emptied(operator):
    made = operator.post("/v1/accounts", json={"name": "ada"})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/accounts/ada"
    assert made.json() == {
        "account": "ada",
        "posted": 0,
        "held": 0,
        "available": 0,
        "open_orders": 0,
        "max_open_orders": 10_000,
        "tokens_per_minute": 0,
    }
    assert code(operator.post("/v1/accounts", json={"name": "ada"})) == (409, "account_exists")

    filled = operator.post("/v1/accounts/ada/deposits", json={"amount": 50, "note": "March 🦙"})
    assert filled.status_code == 201
    assert filled.json()["account"]["available"] == 50
    taken = operator.post("/v1/accounts/ada/withdrawals", json={"amount": 20})
    assert taken.json()["account"]["available"] == 30
    too_much = operator.post("/v1/accounts/ada/withdrawals", json={"amount": 31})
    assert code(too_much) == (402, "insufficient_balance")

    limits = {"max_open_orders": 3, "tokens_per_minute": None}
    assert operator.put("/v1/accounts/ada/limits", json=limits).json()["max_open_orders"] == 3
    assert operator.get("/v1/accounts/ada").json()["max_open_orders"] == 3
    entries = operator.get("/v1/accounts/ada/statement").json()["entries"]
    assert [(one["kind"], one["amount"], one["note"]) for one in entries] == [
        ("deposit", 50, "March 🦙"),
        ("withdrawal", -20, None),
    ]
    page = operator.get("/v1/accounts/ada/statement", params={"limit": 1}).json()
    assert page["next"] == entries[0]["seq"]
    page = operator.get("/v1/accounts/ada/statement", params={"limit": 2}).json()
    assert (page["entries"], page["next"]) == (entries, None)


def test_a_deposit_that_comes_again_is_posted_once(operator, opened):
    path = f"/v1/accounts/{opened}/deposits"
    key = {"Idempotency-Key": "invoice 7"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda _: operator.post(path, json={"amount": 40}, headers=key), range(6))
        )
    assert {one.status_code for one in answers} == {201}
    assert len({one.json()["id"] for one in answers}) == 1
    assert operator.get(f"/v1/accounts/{opened}").json()["posted"] == 40
    for account, body in (
        (opened, {"amount": 41}),
        (opened, {"amount": 40, "note": "another"}),
        ("default", {"amount": 40}),
    ):
        answer = operator.post(f"/v1/accounts/{account}/deposits", json=body, headers=key)
        assert code(answer) == (422, "idempotency_key_reused")
        assert "'invoice 7'" in answer.json()["error"]["message"]
    # Without a key, and with another, it is another deposit.
    for headers in ({}, {}, {"Idempotency-Key": "invoice 8"}):
        operator.post(f"/v1/accounts/{opened}/deposits", json={"amount": 1}, headers=headers)
    assert operator.get(f"/v1/accounts/{opened}").json()["posted"] == 43


def test_an_operators_idempotency_key_is_its_own_accounts(shop, operator, opened):
    herd, _ = shop
    herd.client.accounts.create("other-operator")
    _, other = herd.client.api_keys.create("other-operator", scopes=["operate"])
    _, same = herd.client.api_keys.create("default", scopes=["operate"])
    body, key = {"amount": 10}, {"Idempotency-Key": "x"}
    path = f"/v1/accounts/{opened}/deposits"
    operator.post(path, json=body, headers=key)
    operator.post(path, json=body, headers=key | bearer(same))
    assert operator.get(f"/v1/accounts/{opened}").json()["posted"] == 10
    operator.post(path, json=body, headers=key | bearer(other))
    assert operator.get(f"/v1/accounts/{opened}").json()["posted"] == 20


def test_a_key_is_made_shown_once_listed_and_ended(shop, operator, opened):
    _, url = shop
    body = {"name": "laptop", "scopes": ["read"], "expires_s": 60, "spending_limit": 9}
    made = operator.post(f"/v1/accounts/{opened}/keys", json=body)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    text, key_id = made.json()["key"], made.json()["id"]
    assert httpx.get(f"{url}/v1/account", headers=bearer(text)).json()["account"] == opened
    listed = operator.get(f"/v1/accounts/{opened}/keys")
    assert [one["id"] for one in listed.json()["keys"]] == [key_id]
    assert text not in listed.text
    assert "digest" not in listed.text
    assert listed.json()["keys"][0]["spending_limit"] == 9

    assert operator.delete(f"/v1/keys/{key_id}").json()["revoked"] is not None
    assert code(httpx.get(f"{url}/v1/account", headers=bearer(text))) == (401, "unauthorized")
    assert code(operator.delete(f"/v1/keys/{ID}")) == (404, "api_key_not_found")


def test_pages_go_on_where_the_one_before_ended(operator, opened):
    names = [f"page{number}" for number in range(5)]
    for name in names:
        operator.post("/v1/accounts", json={"name": name})
        operator.post(f"/v1/accounts/{opened}/keys", json={"name": name})
        operator.post(f"/v1/accounts/{opened}/grants", json={"amount": 1, "every": "week"})

    def all_of(path, what):
        found, after = [], None
        while True:
            given = {"limit": 2} | ({"after": after} if after else {})
            page = operator.get(path, params=given).json()
            assert len(page[what]) <= 2
            found += page[what]
            after = page["next"]
            if after is None:
                return found

    accounts = [one["account"] for one in all_of("/v1/accounts", "accounts")]
    assert accounts == sorted(set(accounts))
    assert set(names) < set(accounts)
    keys = all_of(f"/v1/accounts/{opened}/keys", "keys")
    assert [one["name"] for one in keys] == names
    assert len({one["id"] for one in all_of(f"/v1/accounts/{opened}/grants", "grants")}) == 5


def test_a_grant_is_made_once_listed_and_ended(operator, opened):
    path = f"/v1/accounts/{opened}/grants"
    body, key = {"amount": 500, "every": "month", "note": "share"}, {"Idempotency-Key": "g"}
    made, again = (operator.post(path, json=body, headers=key) for _ in range(2))
    assert (made.status_code, again.json()) == (201, made.json())
    assert operator.get(f"/v1/accounts/{opened}").json()["available"] == 500
    changed = operator.post(path, json=body | {"amount": 1}, headers=key)
    assert code(changed) == (422, "idempotency_key_reused")
    assert "'g'" in changed.json()["error"]["message"]
    (entry,) = operator.get(f"/v1/accounts/{opened}/statement").json()["entries"]
    today = day_of(clock_us())
    assert (entry["kind"], entry["period"], entry["note"]) == ("grant", f"{today:%Y-%m}", "share")
    (card,) = operator.get(path).json()["grants"]
    following = Every.MONTH.following(Every.MONTH.beginning(today))
    assert (card["periods"], card["next"]) == (1, f"{following}T00:00:00Z")
    ended = operator.delete(f"/v1/grants/{card['id']}").json()
    assert ended["ended"] is not None
    assert ended["next"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/accounts", {"name": "two words"}, (400, "invalid_name")),
        ("POST", "/v1/accounts", {"name": "\ud800"}, (400, "invalid_name")),
        ("POST", "/v1/accounts", {}, (400, "invalid_request")),
        ("GET", "/v1/accounts/nobody", None, (404, "account_not_found")),
        ("GET", "/v1/accounts/nobody/keys", None, (404, "account_not_found")),
        ("GET", "/v1/accounts/nobody/grants", None, (404, "account_not_found")),
        ("GET", "/v1/accounts/nobody/statement", None, (404, "account_not_found")),
        ("GET", "/v1/accounts/%00", None, (400, "invalid_request")),
        ("GET", f"/v1/accounts/{'x' * 500}", None, (400, "invalid_request")),
        ("GET", "/v1/accounts?limit=0", None, (400, "invalid_request")),
        ("GET", "/v1/accounts/default/keys?after=nothing", None, (404, "api_key_not_found")),
        ("GET", f"/v1/accounts/default/grants?after={ID}", None, (404, "grant_not_found")),
        ("POST", "/v1/accounts/nobody/deposits", {"amount": 5}, (404, "account_not_found")),
        ("POST", "/v1/accounts/nobody/keys", {}, (404, "account_not_found")),
        *(
            ("POST", "/v1/accounts/default/deposits", body, (400, "invalid_request"))
            for body in (
                {"amount": 0},
                {"amount": 1.5},
                {"amount": "5"},
                {"amount": True},
                {"amount": None},
                {"amount": 2**53},
                {"amount": 10**400},
                {"amount": 5, "note": ""},
                {"amount": 5, "note": "a\ud800"},
                {"amount": 5, "note": "x" * 1001},
                {"amount": 5, "currency": "EUR"},
                [],
            )
        ),
        ("POST", "/v1/accounts/default/keys", {"scopes": ["fly"]}, (400, "invalid_request")),
        ("POST", "/v1/accounts/default/keys", {"expires_s": 0}, (400, "invalid_request")),
        ("POST", "/v1/accounts/default/grants", {"amount": 5, "every": "year"}, (400, None)),
        (
            "POST",
            "/v1/accounts/default/grants",
            {"amount": 5, "every": "day", "starts": "soon"},
            (400, "invalid_request"),
        ),
        (
            "POST",
            "/v1/accounts/default/grants",
            {"amount": 5, "every": "day", "note": "\ud800"},
            (400, "invalid_request"),
        ),
        ("DELETE", "/v1/grants/mine", None, (404, "grant_not_found")),
        ("POST", f"/v1/orders/{ID}/refunds", {"reason": "sorry"}, (404, "order_not_found")),
        ("POST", f"/v1/orders/{ID}/refunds", {"reason": "a\ud800"}, (400, "invalid_request")),
        ("PUT", "/v1/accounts/default/limits", {"max_open_orders": 1}, (400, "invalid_request")),
        (
            "PUT",
            "/v1/accounts/default/limits",
            {"max_open_orders": -1, "tokens_per_minute": None},
            (400, "invalid_request"),
        ),
        ("POST", "/v1/workers/nobody/drain", None, (404, "worker_not_found")),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_moves_nothing(
    shop, operator, method, path, body, expected
):
    herd, _ = shop
    before = herd.client.accounts.audit()
    content = None if body is None else json.dumps(body)
    answer = operator.request(
        method, path, content=content, headers={"Content-Type": "application/json"}
    )
    status, wanted = expected
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"].endswith(".")
    assert wanted in (None, error["code"])
    assert herd.client.accounts.audit() == before


def test_a_key_that_is_none_is_refused(operator):
    for key in ("", "x" * 256):
        answer = operator.post(
            "/v1/accounts/default/deposits", json={"amount": 5}, headers={"Idempotency-Key": key}
        )
        assert code(answer) == (400, "invalid_idempotency_key")


# With a herder and workers


def test_an_operator_sees_usage_refunds_and_drains(herd):
    herd.client.accounts.create("ada")
    herd.client.accounts.deposit("ada", 1000, ID)
    _, url = herd.start_gateway()
    _, operator_key = herd.client.api_keys.create("default", scopes=["operate"])
    _, reader_key = herd.client.api_keys.create("ada", scopes=["read"])
    worker = herd.start_worker()
    order = herd.submit(account="ada", tokens=5, fee=20)
    order.result(60)
    web = httpx.Client(base_url=url, headers=bearer(operator_key), timeout=60)

    body, key = {"reason": "cut off", "amount": 6}, {"Idempotency-Key": "r"}
    given, again = (
        web.post(f"/v1/orders/{order.id}/refunds", json=body, headers=key) for _ in range(2)
    )
    assert (given.status_code, given.json()["amount"]) == (201, 6)
    assert again.json() == given.json()
    assert given.json()["receipt"]["refunded"] == 6
    too_much = web.post(f"/v1/orders/{order.id}/refunds", json={"reason": "x", "amount": 99})
    assert code(too_much) == (409, "refund_refused")

    charged = herd.client.receipt(order.id).charged
    report = web.get("/v1/usage", params={"by": "model"}).json()
    (row,) = report["rows"]
    assert row["name"] == "stub"
    assert row["orders"] == {"completed": 1, "failed": 0, "cancelled": 0, "expired": 0}
    assert (row["generated"], row["charged"], row["refunded"]) == (5, charged, 6)
    assert web.get("/v1/usage", params={"account": "default"}).json()["rows"] == []
    assert code(web.get("/v1/usage", params={"account": "nobody"})) == (404, "account_not_found")

    sheet = web.get("/v1/usage", headers={"Accept": "text/csv"})
    assert sheet.headers["content-type"].startswith("text/csv")
    titles, line = csv.reader(io.StringIO(sheet.text))
    assert (titles[0], line[0]) == ("account", "ada")
    assert line[titles.index("charged")] == str(charged)

    herd.submit(account="default", tokens=5, fee=20).result(60)
    pages = web.get("/v1/usage", params={"limit": 1}, headers={"Accept": "text/csv"})
    more = web.get(pages.links["next"]["url"], headers={"Accept": "text/csv"})
    assert [list(csv.reader(io.StringIO(one.text)))[1][0] for one in (pages, more)] == [
        "ada",
        "default",
    ]
    assert "next" not in more.links

    mine = bearer(reader_key)
    assert [one["name"] for one in web.get("/v1/usage", headers=mine).json()["rows"]] == ["ada"]
    theirs = web.get("/v1/usage", params={"account": "default"}, headers=mine)
    assert code(theirs) == (403, "forbidden")
    for wrong in ({"from": "soon"}, {"to": "2026-02-30"}, {"by": "day"}, {"from": "1970-01-01"}):
        answer = web.get("/v1/usage", params=wrong)
        assert code(answer) == (400, "invalid_request")
        assert answer.json()["error"]["message"].count(".") == 1

    (card,) = web.get("/v1/workers").json()["workers"]
    assert (card["name"], card["state"], card["free"]) == (worker.name, "alive", 2)
    drained = web.post(f"/v1/workers/{worker.name}/drain")
    assert (drained.status_code, drained.json()["worker"]) == (202, worker.name)
    assert worker.ended() == 0
    wait_for(lambda: web.get("/v1/workers").json()["workers"] == [], "it is gone")
    web.close()


def test_herders_that_are_killed_while_they_post_grants_post_each_period_once(make_herd):
    """Real herders come back after 250 days, two at once, and die one after the other."""
    herd = make_herd()
    away = 250
    names = [f"team{number}" for number in range(6)]
    for name in names:
        herd.client.accounts.create(name)
        herd.client.grants.create(name, 3, "day")
    today = day_of(clock_us())
    back_us = start_us(date.fromordinal(today.toordinal() - away))
    with herd.database.write() as connection:
        connection.execute(grants.update().values(next_us=back_us))

    def posted():
        return sum(herd.client.accounts.balance(name).posted // 3 for name in names)

    herders = [herd.start_herder() for _ in range(2)]
    for mark in (200, 600, 1000):
        wait_for(lambda mark=mark: posted() >= mark, f"{mark} periods are posted")
        herders.pop(0).kill()
        herders.append(herd.start_herder())
    # The day of today was posted at once, when the grants were made.
    days = {date.fromordinal(today.toordinal() - before).isoformat() for before in range(away + 1)}
    wait_for(
        lambda: all(
            one.next_us > back_us + away * 86_400_000_000 for one in herd.client.grants.list()
        ),
        "all of it is posted",
    )
    for name in names:
        entries = herd.client.accounts.statement(name, limit=1000)
        periods = [one.tags["period"] for one in entries]
        assert len(periods) == len(set(periods))
        assert set(periods) >= days
        assert herd.client.accounts.balance(name).posted == 3 * len(periods)
