"""The message interface: what is sent, what is answered in the inbox, and that once."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from herder.db.tables import order_text
from herder.errors import (
    AccountNotFound,
    IdempotencyKeyReused,
    InvalidMessage,
    InvalidRequest,
    Unauthorized,
)
from herder.messages.inbox import read_inbox
from herder.messages.tags import parse_tags
from herder.orders.retention import OldTexts, purge
from herder.store import orders as order_sql
from workers.wire import Failure

BROKEN = Failure(code="broken", message="It went wrong.", permanent=True)


def take(message, **tags):
    """A message without the tags that are given here, which it has to have so."""
    for name, value in tags.items():
        assert message.get(name.replace("_", "-")) == value, message
    return message


# What is asked


def test_info_is_answered_as_the_original_answered_it(house):
    house.worker()
    sent = house.send(Action="Info")
    (message,) = read_inbox(house.database, "default", 0, 10)
    assert (message.number, message.in_reply_to, message.order) == (1, sent.id, None)
    sentence = message.tags.pop("Data")
    version = message.tags.pop("Version")
    assert version
    assert sentence.endswith(".")
    assert message.tags == {
        "From": "herder",
        "Action": "Info-Response",
        "Name": "Llama Herder",
        "Base-Fee": "1",
        "Token-Fee": "1",
        "Last-Multiplier": "1",
        "Queue-Length": "0",
    }
    house.ask(26)
    house.ask(26)
    house.dispatch()
    house.send(Action="Info")
    take(house.inbox()[-1], Queue_Length="1", Last_Multiplier="2")


def test_a_balance_says_what_may_be_spent_and_what_is_held(house):
    house.ask(26)
    house.send(Action="Balance")
    (message,) = house.inbox()
    take(message, Action="Balance-Response", Balance="99974", Held="26", Account="default")
    with pytest.raises(InvalidMessage, match="own account"):
        house.send(Action="Balance", Recipient="ada")


def test_a_paid_prompt_is_an_order_and_its_answer_comes_with_its_end(house):
    worker = house.worker()
    sent = house.ask(26, "Why not?", X_Reference="mine", X_Termination="###", Cast="x", X_More="y")
    order = house.order(sent.order)
    assert (order.fee, order.tokens, order.reference) == (26, 10, "mine")
    assert (order.message, sent.model) == (sent.id, "stub")
    assert house.inbox() == []
    job = house.dispatched()
    assert job.stop == ("###",)
    worker.finish(job, text="so it is", generated=5)
    (message,) = read_inbox(house.database, "default", 0, 10)
    assert (message.in_reply_to, message.order, message.text_deleted) == (sent.id, order.id, False)
    assert message.tags == {
        "From": "herder",
        "Action": "Inference-Response",
        "X-Reference": "mine",
        "Data": "so it is",
        "Charged": "16",
        "Returned": "10",
    }
    worker.finish(job, text="so it is", generated=5)
    assert len(house.inbox()) == 1, "the outcome came again"


def test_an_order_that_came_otherwise_is_answered_to_nobody(house):
    worker = house.worker()
    house.submit(reference="r")
    worker.finish(house.dispatched())
    assert house.inbox() == []


def test_what_failed_was_cancelled_or_ran_too_long_is_told_with_what_came_back(house):
    worker = house.worker(slots=3)
    sent = [house.ask(26, X_Reference=str(number)) for number in range(4)]
    jobs = {job.order: job for job in house.dispatch()}
    worker.finish(jobs[sent[0].order], result="failed", failure=BROKEN)
    worker.finish(jobs[sent[1].order], finish_reason="deadline", generated=5, text="half")
    worker.claim(jobs[sent[2].order])
    house.cancellation.cancel(sent[2].order)
    worker.finish(jobs[sent[2].order], finish_reason="cancelled", generated=0, text="")
    house.cancellation.cancel(sent[3].order)
    told = house.inbox()
    assert {message["Action"] for message in told} == {"Inference-Failed"}
    take(told[0], X_Reference="0", X_Reason="It went wrong.", Returned="26", Data="")
    take(told[1], X_Reference="1", X_Reason="It ran longer than allowed.", Returned="10")
    take(told[1], Charged="16", Data="half")
    take(told[2], X_Reference="2", X_Reason="It was cancelled.", Returned="26")
    take(told[3], X_Reference="3", X_Reason="It was cancelled.", Returned="26", Charged="0")


def test_an_order_that_kills_its_workers_is_told_as_failed(make_house):
    house = make_house(max_attempts=1)
    house.fund(1000)
    worker = house.worker()
    sent = house.ask(26)
    worker.claim(house.dispatched())
    assert house.lapse(house.settings.lease_s + 1).inboxes == {"default"}
    (message,) = house.inbox()
    take(message, Action="Inference-Failed", Returned="26")
    assert "fell silent" in message["X-Reason"]
    assert house.order(sent.order).state == "failed"


# What is refused


@pytest.mark.parametrize("quantity", [12, 1])
def test_what_is_underpaid_comes_back_with_what_was_needed(house, quantity):
    before = house.traces()
    sent = house.ask(quantity, X_Reference="mine")
    (message,) = house.inbox()
    take(message, Action="Transfer", Recipient="default", Quantity=str(quantity))
    take(message, X_Reason="Insufficient payment", X_Needed="13", X_Reference="mine")
    assert sent.order is None
    assert house.traces() == before
    assert (house.available(), house.held()) == (100_000, 0)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"Quantity": "200000"}, "insufficient_balance"),
        ({"Quantity": "0"}, "invalid_fee"),
        ({"Quantity": "-5"}, "invalid_fee"),
        ({"Quantity": "9" * 30}, "invalid_fee"),
        ({"X_Tokens": "0"}, "invalid_tokens"),
        ({"X_Tokens": "-100"}, "invalid_tokens"),
        ({"X_Tokens": "9" * 30}, "invalid_tokens"),
        ({"X_Prompt": ""}, "invalid_prompt"),
        ({"X_Prompt": "x" * 70_000}, "invalid_prompt"),
        ({"X_Termination": "x" * 1000}, "invalid_stop"),
        ({"X_Reference": "x" * 1000}, "invalid_reference"),
    ],
)
def test_what_is_refused_is_answered_and_leaves_no_other_trace(house, tags, code):
    before = house.traces()
    house.ask(26, **tags)
    (message,) = house.inbox()
    take(message, Action="Transfer", X_Code=code, Recipient="default")
    assert message["X-Reason"].endswith(".")
    assert "X-Needed" not in message
    assert house.traces() == before
    assert (house.available(), house.held()) == (100_000, 0)


def test_limits_of_the_account_and_of_the_key_are_answered_too(house):
    house.accounts.set_limits("default", max_open_orders=1, tokens_per_minute=None)
    key, _ = house.api_keys.create("default", max_fee=30)
    tags = {"Action": "Transfer", "Recipient": "herder", "X-Prompt": "two words", "X-Tokens": "10"}

    def send(quantity):
        house.messages.send({**tags, "Quantity": quantity}, account="default", api_key=key.id)
        return house.inbox()[-1]

    take(send("31"), X_Code="key_limit_reached", Quantity="31")
    house.ask(26)
    take(send("26"), X_Code="rate_limited")
    house.api_keys.revoke(key.id)
    house.accounts.set_limits("default", max_open_orders=None, tokens_per_minute=None)
    with pytest.raises(Unauthorized):
        send("26")
    assert len(house.inbox()) == 2


@pytest.mark.parametrize(
    ("body", "tag"),
    [
        (None, None),
        ("Info", None),
        (5, None),
        ([["Action", "Info"]], None),
        ([{"name": "Action"}], None),
        ([{"name": "Action", "value": "Info", "more": "x"}], None),
        ([{"name": "Action", "value": "Info"}] * 2, "Action"),
        ({}, "Action"),
        ({"Action": 5}, "Action"),
        ({"Action": None}, "Action"),
        ({"Action": "info"}, "Action"),
        ({"Action": "Withdraw"}, "Action"),
        ({"Action": "Info", "": "x"}, None),
        ({"Action": "Info", "Some": ["x"]}, "Some"),
        ({"Action": "Info", "Some": "\ud800"}, "Some"),
        ({"Action": "Info", "Some": "x" * 2000}, "Some"),
        ({"Action": "Info", **{f"X-{number}": "x" for number in range(40)}}, None),
        ({"Action": "Transfer", "Quantity": "5"}, "Recipient"),
        ({"Action": "Transfer", "Recipient": "ada"}, "Quantity"),
        ({"Action": "Transfer", "Recipient": "ada", "Quantity": "5.5"}, "Quantity"),
        ({"Action": "Transfer", "Recipient": "ada", "Quantity": "\u0665"}, "Quantity"),
        ({"Action": "Transfer", "Recipient": "ada", "Quantity": "5\n"}, "Quantity"),
        ({"Action": "Transfer", "Recipient": "herder", "Quantity": "5"}, "X-Prompt"),
        (
            {"Action": "Transfer", "Recipient": "herder", "Quantity": "5", "X-Prompt": "x"},
            "X-Tokens",
        ),
        (
            {
                "Action": "Transfer",
                "Recipient": "herder",
                "Quantity": "5",
                "X-Prompt": "x",
                "X-Tokens": "ten",
            },
            "X-Tokens",
        ),
        (
            {"Action": "Transfer", "Recipient": "ada", "Quantity": "5", "X-Prompt": "x"},
            "Recipient",
        ),
    ],
)
def test_what_is_no_message_is_refused_at_once(house, body, tag):
    with pytest.raises(InvalidMessage) as caught:
        house.messages.send(body, account="default")
    assert caught.value.param == tag
    assert caught.value.message.endswith(".")
    assert house.inbox() == []


def test_the_originals_list_of_tags_is_the_same_message():
    pairs = [{"name": "Action", "value": "Info"}, {"name": "Target", "value": "herder"}]
    assert parse_tags(pairs) == {"Action": "Info", "Target": "herder"}


def test_who_has_no_account_can_send_nothing(house):
    for tags in ({"Action": "Info"}, {"Action": "Balance"}):
        with pytest.raises(AccountNotFound):
            house.messages.send(tags, account="nobody")


# Between accounts


def test_money_for_another_account_is_told_to_both(house):
    house.accounts.create("ada")
    sent = house.send(
        Action="Transfer", Recipient="ada", Quantity="40", X_Note="for the llama", Else="no"
    )
    assert sent.told
    assert (house.available(), house.available("ada")) == (99_960, 40)
    (debit,) = house.inbox()
    take(debit, Action="Debit-Notice", Recipient="ada", Quantity="40", X_Note="for the llama")
    (credit,) = read_inbox(house.database, "ada", 0, 10)
    assert credit.in_reply_to is None
    take(credit.tags, Action="Credit-Notice", Sender="default", Quantity="40")
    take(credit.tags, X_Note="for the llama", Else=None)


@pytest.mark.parametrize(
    ("payee", "quantity", "code"),
    [
        ("ada", "100001", "insufficient_balance"),
        ("ada", "0", "invalid_amount"),
        ("ada", "-1", "invalid_amount"),
        ("ada", "9" * 30, "invalid_amount"),
        ("nobody", "5", "account_not_found"),
        ("default", "5", "invalid_request"),
        ("client:ada", "5", "invalid_name"),
        ("a\x00b", "5", "invalid_name"),
        ("outside", "5", "account_not_found"),
    ],
)
def test_a_transfer_that_is_refused_is_told_to_its_sender_alone(house, payee, quantity, code):
    house.accounts.create("ada")
    sent = house.send(Action="Transfer", Recipient=payee, Quantity=quantity, X_Note="n")
    (message,) = house.inbox()
    take(message, Action="Transfer-Error", X_Code=code, X_Note="n", Message_Id=sent.id)
    assert message["Error"].endswith(".")
    assert house.inbox("ada") == []
    assert (house.available(), house.available("ada")) == (100_000, 0)


def test_what_a_key_may_spend_counts_for_transfers_too(house):
    house.accounts.create("ada")
    key, _ = house.api_keys.create("default", max_fee=30, spending_limit=50)

    def pay(quantity):
        tags = {"Action": "Transfer", "Recipient": "ada", "Quantity": quantity}
        house.messages.send(tags, account="default", api_key=key.id)
        return house.inbox()[-1]

    take(pay("31"), Action="Transfer-Error", X_Code="key_limit_reached")
    take(pay("30"), Action="Debit-Notice")
    take(pay("21"), Action="Transfer-Error", X_Code="key_limit_reached")
    take(pay("20"), Action="Debit-Notice")
    take(pay("1"), Action="Transfer-Error", X_Code="key_limit_reached")
    (known,) = house.api_keys.list("default")
    assert (known.held, known.charged, house.available("ada")) == (0, 50, 50)


# The same message again


def test_the_same_key_is_the_same_message_done_and_answered_once(house):
    house.accounts.create("ada")
    pay = {"Action": "Transfer", "Recipient": "ada", "Quantity": "40"}
    ask = {"Action": "Transfer", "Recipient": "herder", "Quantity": "26"}
    ask |= {"X_Prompt": "two words", "X_Tokens": "10"}
    low = ask | {"Quantity": "5"}
    for number, tags in enumerate((pay, ask, low, {"Action": "Info"}, {"Action": "Balance"})):
        first = house.send(key=f"k{number}", **tags)
        again = house.send(key=f"k{number}", **tags)
        assert (again.id, again.order, again.told, again.model) == (first.id, first.order, (), None)
    assert (house.available("ada"), house.held()) == (40, 26)
    told = [message["Action"] for message in house.inbox()]
    assert told == ["Debit-Notice", "Transfer", "Info-Response", "Balance-Response"]
    assert len(house.inbox("ada")) == 1
    with pytest.raises(IdempotencyKeyReused):
        house.send(key="k0", **{**pay, "Quantity": "41"})
    house.fund(100, "ada")
    other = house.send(key="k3", account="ada", Action="Info")
    assert other.told == ("ada",), "keys are each account's own"
    with pytest.raises(InvalidRequest):
        house.send(key="", Action="Info")


# Reading


def test_an_inbox_is_read_in_pages_and_by_its_account_alone(house):
    house.fund(100, "ada")
    for _ in range(5):
        house.send(Action="Balance")
    house.send(account="ada", Action="Balance")
    page = read_inbox(house.database, "default", 0, 3)
    assert [one.number for one in page] == [1, 2, 3]
    page = read_inbox(house.database, "default", page[-1].number, 3)
    assert [one.number for one in page] == [4, 5]
    assert read_inbox(house.database, "default", 5, 3) == []
    take(house.inbox("ada")[0], Balance="100")
    for after, limit in ((-1, 3), (2**70, 3), (0, 0), (0, 101), (0, True)):
        with pytest.raises(InvalidRequest):
            read_inbox(house.database, "default", after, limit)


def test_long_texts_make_short_pages(house, monkeypatch):
    monkeypatch.setattr("herder.messages.inbox.MAX_PAGE_CHARS", 100)
    worker = house.worker(slots=4)
    for _ in range(4):
        house.ask(26)
    for job, characters in zip(house.dispatch(), (60, 60, 500, 10), strict=True):
        worker.finish(job, text="x" * characters)
    after, pages = 0, []
    while page := read_inbox(house.database, "default", after, 100):
        pages.append([len(one.tags["Data"]) for one in page])
        after = page[-1].number
    assert pages == [[60], [60], [500], [10]]


def test_an_inbox_that_is_full_forgets_the_oldest_but_no_answer_of_an_order(house, monkeypatch):
    monkeypatch.setattr("herder.messages.inbox.MAX_KEPT", 3)
    worker = house.worker()
    house.send(Action="Balance")
    house.ask(26)
    worker.finish(house.dispatched())
    for _ in range(5):
        house.send(Action="Balance")
    found = read_inbox(house.database, "default", 0, 100)
    assert [one.number for one in found] == [2, 5, 6, 7]
    assert found[0].tags["Action"] == "Inference-Response"


def test_an_inbox_that_is_far_too_long_shrinks_a_bounded_number_at_once(house, monkeypatch):
    monkeypatch.setattr("herder.messages.inbox.MORE_TRIMMED", 2)
    for _ in range(8):
        house.send(Action="Balance")
    monkeypatch.setattr("herder.messages.inbox.MAX_KEPT", 3)
    left = []
    for _ in range(3):
        house.send(Action="Balance")
        left.append([one.number for one in read_inbox(house.database, "default", 0, 100)])
    assert left == [[4, 5, 6, 7, 8, 9], [7, 8, 9, 10], [9, 10, 11]]


def test_old_texts_and_messages_are_forgotten_a_bounded_number_at_once(house):
    worker = house.worker()
    for _ in range(3):
        house.ask(26)
        worker.finish(house.dispatched())
        house.send(Action="Balance")
    old = OldTexts(house.database, 1, clock_us=house.clock)
    assert not old.step(2), "nothing is old enough"
    house.now_us += 2 * 86_400_000_000
    kept = house.ask(26)
    left = []
    more = True
    while more:
        more = old.step(2)
        with house.database.read() as connection:
            texts = connection.execute(select(func.count()).select_from(order_text)).scalar_one()
        left.append((texts, len(house.inbox())))
    assert left == [(2, 6), (1, 4), (1, 2), (1, 0), (1, 0)]
    assert house.order(kept.order).state.value == "queued"


def test_old_texts_are_looked_for_in_pieces_and_none_is_passed_over(house, monkeypatch):
    day_us = 86_400_000_000
    waits = house.ask(100)
    worker = house.worker(slots=9)
    (job,) = house.dispatch()
    for _ in range(4):
        house.submit()
    jobs = house.dispatch()
    for one in jobs[:2]:
        worker.finish(one)
    old = OldTexts(house.database, 1, clock_us=house.clock)
    read: list[int] = []
    look = order_sql.texts_after

    def seen(connection, seq, limit, **whose):
        found = look(connection, seq, limit, **whose)
        read.append(len(found))
        return found

    monkeypatch.setattr(order_sql, "texts_after", seen)

    def texts():
        while old.step(2):
            pass
        with house.database.read() as connection:
            return connection.execute(select(func.count()).select_from(order_text)).scalar_one()

    assert (texts(), read) == (5, [2]), "where nothing is old, little is read"
    house.now_us += 2 * day_us
    assert texts() == 3
    assert max(read) == 2, "never more than so many at once"
    for one in jobs[2:]:
        worker.finish(one)
    assert texts() == 3, "they ended only now"
    house.now_us += 2 * day_us
    assert texts() == 1
    worker.finish(job)
    house.now_us += 2 * day_us
    assert texts() == 0
    assert house.order(waits.order).state.value == "completed"
    house.submit()
    del read[:]
    assert (texts(), read) == (1, [1]), "what is gone was passed over for good"


def test_what_a_full_inbox_forgets_is_found_without_reading_the_answers(house):
    with house.database.write() as connection:
        explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        plan = connection.exec_driver_sql(
            f"{explain} DELETE FROM message"
            " WHERE account = 'default' AND number <= 5 AND order_id IS NULL"
        )
        assert "ix_message_passing" in str(plan.all())


def test_a_text_that_is_forgotten_is_forgotten_in_the_inbox(house):
    worker = house.worker()
    sent = house.ask(26, X_Reference="mine")
    worker.finish(house.dispatched(), text="so it is")
    assert purge(house.database, house.now_us, order_id=sent.order) == 1
    (message,) = read_inbox(house.database, "default", 0, 10)
    assert message.text_deleted
    take(message.tags, Data="", X_Reference="mine", Action="Inference-Response")


def test_the_answers_of_an_account_whose_texts_are_purged_go_with_them(house):
    worker = house.worker()
    house.ask(26)
    worker.finish(house.dispatched())
    house.ask(26)
    house.submit(account="default")
    house.send(Action="Balance")
    assert purge(house.database, house.now_us, account="default") == 1
    assert house.inbox() == []
    worker.finish(house.dispatched())
    assert [one["Action"] for one in house.inbox()] == ["Inference-Response"]


def test_old_messages_go_with_the_texts_of_their_time(house):
    house.fund(100, "ada")
    house.send(Action="Balance")
    house.send(account="ada", Action="Balance")
    house.now_us += 10 * 86_400_000_000
    house.send(Action="Balance")
    purge(house.database, house.now_us, older_than_days=5, account="default")
    assert (len(house.inbox()), len(house.inbox("ada"))) == (1, 1)
    purge(house.database, house.now_us, older_than_days=5)
    assert (len(house.inbox()), len(house.inbox("ada"))) == (1, 0)
    house.send(Action="Balance")
    assert [one.number for one in read_inbox(house.database, "default", 0, 10)] == [2, 3]
