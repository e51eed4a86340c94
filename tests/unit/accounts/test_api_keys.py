"""API keys: shown once, kept as a digest, bounded in what they may spend, ended at once."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from herder.accounts.api_keys import require
from herder.errors import (
    AccountNotFound,
    ApiKeyLimitReached,
    ApiKeyNotFound,
    Forbidden,
    InvalidFee,
    InvalidRequest,
    Unauthorized,
)

DAY_S = 86_400


def test_a_key_is_shown_once_and_its_secret_is_nowhere(house):
    key, shown = house.api_keys.create("default", name="laptop")
    secret = shown.split("_", 2)[2]
    assert shown.startswith(f"herd_{key.id}_")
    assert house.api_keys.recognise(shown) == key
    with house.database.read() as connection:
        rows = connection.execute(text("SELECT * FROM api_key")).all()
    assert secret not in str(rows)
    assert house.api_keys.list("default") == [key]


@pytest.mark.parametrize(
    "broken", ["", "herd_", "sk-1234", "herd_0123456789abcdef_", "\ud800", "é"]
)
def test_what_is_no_key_opens_nothing(house, broken):
    with pytest.raises(Unauthorized):
        house.api_keys.recognise(broken)


def test_another_secret_under_the_same_id_opens_nothing(house):
    (key, _), (_, other) = (house.api_keys.create("default") for _ in range(2))
    forged = f"herd_{key.id}_{other.split('_', 2)[2]}"
    with pytest.raises(Unauthorized, match="not an API key"):
        house.api_keys.recognise(forged)


def test_a_revoked_key_opens_nothing_from_then_on(house):
    key, shown = house.api_keys.create("default")
    order = house.submit(api_key=key.id)
    revoked = house.api_keys.revoke(key.id)
    assert revoked.revoked_us == house.now_us
    with pytest.raises(Unauthorized, match="revoked"):
        house.api_keys.recognise(shown)
    # A call that was let in just before does not get through either.
    with pytest.raises(Unauthorized):
        house.submit(api_key=key.id)
    with pytest.raises(Unauthorized):
        house.intake.rebid(order.id, 500)
    assert house.held() == order.fee, "what was bought before goes on"
    assert house.api_keys.revoke(key.id).revoked_us == revoked.revoked_us


def test_a_key_ends_when_it_was_said_to(house):
    _, shown = house.api_keys.create("default", expires_s=DAY_S)
    house.now_us += (DAY_S - 1) * 1_000_000
    house.api_keys.recognise(shown)
    house.now_us += 1_000_000
    with pytest.raises(Unauthorized, match="expired"):
        house.api_keys.recognise(shown)


def test_another_accounts_key_is_not_there(house):
    house.fund(1, "ada")
    key, _ = house.api_keys.create("default")
    with pytest.raises(ApiKeyNotFound):
        house.api_keys.revoke(key.id, account="ada")
    with pytest.raises(ApiKeyNotFound):
        house.api_keys.revoke("\ud800")
    assert house.api_keys.list("ada") == []


def test_scopes_say_what_it_is_for(house):
    key, _ = house.api_keys.create("default", scopes=["read"])
    assert require(key, "read") is key
    with pytest.raises(Forbidden, match="buy"):
        require(key, "buy")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"scopes": []}, InvalidRequest),
        ({"scopes": ["buy", "fly"]}, InvalidRequest),
        ({"name": "a\nb"}, InvalidRequest),
        ({"name": "x" * 101}, InvalidRequest),
        ({"expires_s": 0}, InvalidRequest),
        ({"expires_s": True}, InvalidRequest),
        ({"max_fee": 0}, InvalidFee),
        ({"spending_limit": 2**63}, InvalidFee),
    ],
)
def test_a_key_that_may_not_be_is_not_made(house, given, error):
    with pytest.raises(error):
        house.api_keys.create("default", **given)
    assert house.api_keys.list() == []


def test_a_key_needs_an_account(house):
    with pytest.raises(AccountNotFound):
        house.api_keys.create("nobody")


def test_the_highest_fee_bounds_orders_and_new_bids(house):
    key, _ = house.api_keys.create("default", max_fee=50)
    order = house.submit(fee=50, api_key=key.id)
    with pytest.raises(ApiKeyLimitReached, match="51"):
        house.submit(fee=51, api_key=key.id)
    with pytest.raises(ApiKeyLimitReached):
        house.intake.rebid(order.id, 60)
    assert house.held() == 50


def test_the_spending_limit_counts_what_is_held_and_what_was_charged(house):
    key, shown = house.api_keys.create("default", spending_limit=100)
    first = house.submit(fee=60, api_key=key.id)
    with pytest.raises(ApiKeyLimitReached, match="40 are left") as refused:
        house.submit(fee=41, api_key=key.id)
    assert refused.value.data == {"left": 40, "required": 41, "spending_limit": 100}
    house.intake.rebid(first.id, 100)
    with pytest.raises(ApiKeyLimitReached):
        house.intake.rebid(first.id, 101)

    worker = house.worker()
    job = house.dispatched()
    worker.claim(job)
    worker.finish(job, generated=5)
    charged = house.order(first.id).charged
    assert 0 < charged < 100
    now = house.api_keys.recognise(shown)
    assert (now.held, now.charged) == (0, charged)
    house.submit(fee=100 - charged, api_key=key.id)
    with pytest.raises(ApiKeyLimitReached, match=" 0 are left"):
        house.submit(fee=20, api_key=key.id)


def test_what_ends_for_nothing_may_be_spent_again(house):
    key, shown = house.api_keys.create("default", spending_limit=30)
    order = house.submit(fee=30, api_key=key.id)
    house.cancellation.cancel(order.id)
    now = house.api_keys.recognise(shown)
    assert (now.held, now.charged) == (0, 0)
    house.submit(fee=30, api_key=key.id)


def test_the_same_call_again_is_not_counted_again(house):
    key, shown = house.api_keys.create("default", spending_limit=30)
    one, again = (house.submit(fee=30, api_key=key.id, idempotency_key="k") for _ in range(2))
    assert one.id == again.id
    assert house.api_keys.recognise(shown).held == 30
