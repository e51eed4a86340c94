"""The database goes away while a message is taken: it is answered once, or not at all."""

from __future__ import annotations

import pytest

from herder.db import database as databases
from herder.db.outages import CommitUnknown
from herder.errors import HerdUnavailable
from herder.local.local_herd import LocalHerd
from herder.messages.inbox import read_inbox
from herder.settings import load_settings
from herder.store import orders as order_sql
from tests.support.wait import wait_for
from tests.unit.cli.herder_cli_support import NO_REDIS
from tests.unit.db.test_outages import back_after

PROMPT = {
    "Action": "Transfer",
    "Recipient": "herder",
    "Quantity": "50",
    "X-Prompt": "two words",
    "X-Tokens": "10",
}
PAYMENT = {"Action": "Transfer", "Recipient": "payee", "Quantity": "70"}
NOTHING = {**PAYMENT, "Recipient": "nobody"}
BALANCE = {"Action": "Balance"}


@pytest.fixture
def herd(outage_house):
    outage_house.accounts.create("payee")
    settings = load_settings(
        outage_house.settings.home, database_url=outage_house.settings.database, redis_url=NO_REDIS
    )
    made = LocalHerd(settings)
    yield made
    made.close()


def orders(herd):
    with herd.database.read() as connection:
        return order_sql.list_orders(connection)


@pytest.mark.parametrize("key", [None, "a key"])
@pytest.mark.parametrize(
    ("tags", "letters", "paid"), [(PAYMENT, 1, 70), (NOTHING, 1, 0), (BALANCE, 1, 0)]
)
def test_what_was_cut_off_is_done_and_answered_once(outage, herd, key, tags, letters, paid):
    before = herd.balance("payee").available
    waiting = back_after(outage, outage.at_commit(), 0.3)
    taken = herd.send_message(tags, account="default", idempotency_key=key)
    waiting.join()
    assert herd.balance("payee").available == before + paid
    answers = read_inbox(herd.database, "default", 0, 100)
    assert [one.in_reply_to for one in answers] == [taken.id] * letters
    assert "default" in taken.told


@pytest.mark.parametrize("key", [None, "a key"])
def test_a_prompt_that_was_cut_off_is_one_order(outage, herd, key):
    waiting = back_after(outage, outage.at_commit(), 0.3)
    taken = herd.send_message(PROMPT, account="default", idempotency_key=key)
    waiting.join()
    (order,) = orders(herd)
    assert (order.id, order.message, order.model) == (taken.order, taken.id, taken.model)
    assert herd.balance("default").held == 50


def test_a_prompt_of_which_nothing_is_heard_is_cancelled_when_the_database_is_back(
    outage, herd, monkeypatch
):
    monkeypatch.setattr(databases, "SETTLE_S", 0.2)
    outage.at_commit()
    with pytest.raises(CommitUnknown, match="it is cancelled as soon as") as caught:
        herd.send_message(PROMPT, account="default")
    outage.end()
    wait_for(lambda: [one.state.value for one in orders(herd)] == ["cancelled"], "it is cancelled")
    assert caught.value.data["order"] == orders(herd)[0].id
    assert herd.balance("default").held == 0


def test_with_a_key_it_may_be_sent_again_and_a_payment_says_where_to_look(
    outage, herd, monkeypatch
):
    monkeypatch.setattr(databases, "SETTLE_S", 0.2)
    for tags, said in ((PROMPT, "herd order show"), (PAYMENT, "inbox")):
        outage.at_commit()
        with pytest.raises(HerdUnavailable, match=said):
            herd.send_message(tags, account="default", idempotency_key=said)
        outage.end()
        again = herd.send_message(tags, account="default", idempotency_key=said)
        assert herd.send_message(tags, account="default", idempotency_key=said).id == again.id
    assert len(orders(herd)) == 1
    assert herd.balance("payee").available == 70
