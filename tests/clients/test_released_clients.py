"""What OpenAI's released packages do when something goes wrong, and what it costs."""

from __future__ import annotations

import signal

import pytest

from tests.clients.conftest import LIMIT_S
from tests.support.running import QUICK
from tests.support.wait import wait_for

STEP_MS = 60
"""Milliseconds of a token: slow enough that something may happen in the middle."""

LONG = 3000
"""Tokens of an answer that no test waits for: three minutes."""

STOPPED = 300
"""Tokens of an answer in whose middle a gateway stops: 18 seconds, of which it takes one."""

IMPATIENT_S = 10
"""A client's time-out: enough for a busy gateway to take an order."""


def orders(herd):
    return herd.client.orders(account="default")


def the_order(herd):
    """The one order that was taken."""
    (receipt,) = wait_for(lambda: orders(herd), "an order is taken", LIMIT_S)
    return receipt


def ended(herd, state):
    """The one order there is, once it ended so."""
    order = the_order(herd).order
    wait_for(lambda: herd.client.receipt(order).state == state, f"it is {state}", LIMIT_S)
    return herd.client.receipt(order)


def paid(herd, receipt):
    balance = herd.client.accounts.balance("default")
    assert (balance.available, balance.held) == (1_000_000 - receipt.charged, 0)


def test_a_whole_answer_and_a_stream_are_the_same(herd, call):
    herd.start_worker()
    _, url = herd.start_gateway()
    whole = call(url, tokens=9).done()
    stream = call(url, tokens=9, stream=True).done()
    assert whole.text.split() == stream.text.split()
    assert (whole.finish, stream.finish) == ("length", "length")
    assert [one.charged for one in orders(herd)] == [12, 12]


def test_a_time_out_that_the_client_repeats_by_itself_buys_one_answer(herd, call):
    _, url = herd.start_gateway(HERD_DISCONNECT_GRACE_S="3600")
    caller = call(url, tokens=9, timeout=IMPATIENT_S, max_retries=50)
    wait_for(lambda: caller.repetitions, "it gives up, and calls again", LIMIT_S)
    herd.start_worker()
    assert caller.done().error is None
    assert (len(caller.text.split()), caller.finish) == (9, "length")
    receipt = ended(herd, "completed")
    assert receipt.charged == receipt.fee
    paid(herd, receipt)


@pytest.mark.parametrize("first_goes", [True, False])
def test_of_two_under_a_key_one_hangs_up_and_the_other_is_answered(herd, call, first_goes):
    _, url = herd.start_gateway(HERD_DISCONNECT_GRACE_S="1")
    callers = []
    for _ in range(2):
        callers.append(call(url, tokens=9, stream=True, idempotency_key="once"))
        callers[-1].begins()
    leaver, patient = callers if first_goes else reversed(callers)
    order = the_order(herd).order
    leaver.hang_up()
    # Somebody else, who goes after that one, is given as long to come back.
    other = call(url, tokens=5, stream=True, idempotency_key="another")
    other.begins()
    other.hang_up()
    (mark,) = [one.order for one in orders(herd) if one.order != order]
    wait_for(lambda: herd.client.receipt(mark).state == "cancelled", "it is", LIMIT_S)
    assert herd.client.receipt(order).state == "queued"
    herd.start_worker()
    assert patient.done().error is None
    assert (len(patient.text.split()), patient.finish) == (9, "length")
    receipt = herd.client.receipt(order)
    assert receipt.charged == receipt.fee
    assert herd.client.receipt(mark).charged == 0
    paid(herd, receipt)


def test_of_two_under_a_key_one_times_out_and_the_other_gets_its_whole_answer(herd, call):
    _, url = herd.start_gateway(HERD_DISCONNECT_GRACE_S="1")
    patient = call(url, tokens=9, idempotency_key="once")
    order = the_order(herd).order
    leaver = call(url, tokens=9, idempotency_key="once", timeout=IMPATIENT_S, max_retries=0).done()
    assert leaver.error is not None
    assert leaver.error["status"] is None, "it was not answered"
    other = call(url, tokens=5, stream=True, idempotency_key="another")
    other.begins()
    other.hang_up()
    (mark,) = [one.order for one in orders(herd) if one.order != order]
    wait_for(lambda: herd.client.receipt(mark).state == "cancelled", "it is", LIMIT_S)
    herd.start_worker()
    assert patient.done().error is None
    assert (len(patient.text.split()), patient.finish) == (9, "length")
    receipt = herd.client.receipt(order)
    assert receipt.charged == receipt.fee
    paid(herd, receipt)


def test_who_hangs_up_on_a_whole_answer_pays_nothing(herd, call):
    herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    _, url = herd.start_gateway(HERD_DISCONNECT_GRACE_S="1")
    caller = call(url, tokens=LONG)
    order = the_order(herd).order
    wait_for(lambda: herd.client.receipt(order).state == "running", "it runs", LIMIT_S)
    caller.hang_up()
    receipt = ended(herd, "cancelled")
    assert (receipt.charged, receipt.generated) == (0, 0)
    assert herd.client.answer(order).text == ""
    paid(herd, receipt)


def test_who_hangs_up_on_a_stream_pays_for_what_was_sent(herd, call):
    herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    _, url = herd.start_gateway()
    caller = call(url, tokens=LONG, stream=True)
    wait_for(lambda: len(caller.text.split()) >= 5, "some of the text", LIMIT_S)
    caller.hang_up()
    receipt = ended(herd, "cancelled")
    result = herd.client.answer(receipt.order)
    # What was on its way when the caller ended was sent, and may not have been printed.
    assert result.text.startswith(caller.text)
    assert len(caller.text.split()) <= receipt.generated == len(result.text.split()) < LONG
    assert 0 < receipt.charged < receipt.fee
    paid(herd, receipt)


@pytest.mark.parametrize("herd", [QUICK], indirect=True)
def test_the_attempt_after_a_lost_worker_is_not_charged_unread(herd, call):
    worker = herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    _, url = herd.start_gateway()
    caller = call(url, tokens=LONG, stream=True, max_retries=0)
    caller.says_something()
    worker.kill()
    herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    error = caller.done().error
    assert error is not None
    assert error["code"] == "stream_restarted"
    receipt = ended(herd, "cancelled")
    # Told once the first attempt is given up, it may hang up before there is another, or after.
    assert receipt.attempts >= 1
    assert receipt.charged == 0
    paid(herd, receipt)


def test_a_stream_that_waits_in_the_queue_is_kept_alive(herd, call):
    _, url = herd.start_gateway()
    caller = call(url, tokens=5, stream=True)
    wait_for(lambda: any("alive" in one for one in caller.said), "a sign of life", LIMIT_S)
    herd.start_worker()
    caller.done()
    assert caller.error is None
    assert len(caller.text.split()) == 5
    paid(herd, ended(herd, "completed"))


def test_a_gateway_that_is_told_to_stop_lets_short_streams_end(herd, call):
    herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    gateway, url = herd.start_gateway(HERD_GATEWAY_GRACE_S="60")
    caller = call(url, tokens=30, stream=True)
    caller.says_something()
    gateway.process.send_signal(signal.SIGTERM)
    caller.done()
    assert caller.error is None
    assert len(caller.text.split()) == 30
    paid(herd, ended(herd, "completed"))


def test_a_gateway_that_stops_in_the_middle_says_so_and_the_order_goes_on(herd, call):
    gateway, url = herd.start_gateway(HERD_GATEWAY_GRACE_S="1")
    stream = call(url, tokens=STOPPED, stream=True, max_retries=0)
    whole = call(url, tokens=STOPPED, prompt="Tell me all.", max_retries=0)
    stream.begins()
    wait_for(lambda: len(orders(herd)) == 2, "both are taken", LIMIT_S)
    herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    stream.says_something()
    gateway.process.send_signal(signal.SIGTERM)
    errors = [stream.done().error, whole.done().error]
    assert [one["code"] for one in errors] == ["gateway_stopping"] * 2
    assert errors[1]["status"] == 503
    for one in orders(herd):
        done = herd.client.result(one.order, LIMIT_S)
        assert (done.receipt.state, len(done.text.split())) == ("completed", STOPPED)
