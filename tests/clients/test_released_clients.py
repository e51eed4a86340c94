"""What OpenAI's released packages do when something goes wrong, and what it costs."""

from __future__ import annotations

import signal

from tests.support.wait import wait_for

STEP_MS = 60
"""Milliseconds of a token: slow enough that something may happen in the middle."""

LONG = 400


def orders(herd):
    return herd.client.orders(account="default")


def the_order(herd):
    """The one order that was taken."""
    (receipt,) = wait_for(lambda: orders(herd), "an order is taken")
    return receipt


def ended(herd, state):
    """The one order there is, once it ended so."""
    order = the_order(herd).order
    wait_for(lambda: herd.client.receipt(order).state == state, f"it is {state}")
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


def test_who_hangs_up_on_a_whole_answer_pays_nothing(herd, call):
    herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    _, url = herd.start_gateway()
    caller = call(url, tokens=LONG)
    order = the_order(herd).order
    wait_for(lambda: herd.client.receipt(order).state == "running", "it runs")
    caller.hang_up()
    receipt = ended(herd, "cancelled")
    assert (receipt.charged, receipt.generated) == (0, 0)
    assert herd.client.answer(order).text == ""
    paid(herd, receipt)


def test_who_hangs_up_on_a_stream_pays_for_what_was_sent(herd, call):
    herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    _, url = herd.start_gateway()
    caller = call(url, tokens=LONG, stream=True)
    wait_for(lambda: len(caller.text.split()) >= 5, "some of the text")
    caller.hang_up()
    receipt = ended(herd, "cancelled")
    result = herd.client.answer(receipt.order)
    # What was on its way when the caller ended was sent, and may not have been printed.
    assert result.text.startswith(caller.text)
    assert len(caller.text.split()) <= receipt.generated == len(result.text.split()) < LONG
    assert 0 < receipt.charged < receipt.fee
    paid(herd, receipt)


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
    # Told once the first attempt is given up, it may hang up before there is a second.
    assert receipt.attempts in (1, 2)
    assert receipt.charged == 0
    paid(herd, receipt)


def test_a_stream_that_waits_in_the_queue_is_kept_alive(herd, call):
    _, url = herd.start_gateway()
    caller = call(url, tokens=5, stream=True, timeout=25)
    wait_for(lambda: any("alive" in one for one in caller.said), "a sign of life", limit_s=60)
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
    herd.start_worker(HERD_STUB_STEP_MS=str(STEP_MS))
    gateway, url = herd.start_gateway(HERD_GATEWAY_GRACE_S="1")
    stream = call(url, tokens=120, stream=True, max_retries=0)
    whole = call(url, tokens=120, prompt="Tell me all.", max_retries=0)
    stream.says_something()
    wait_for(lambda: len(orders(herd)) == 2, "both are taken")
    gateway.process.send_signal(signal.SIGTERM)
    errors = [stream.done().error, whole.done().error]
    assert [one["code"] for one in errors] == ["gateway_stopping"] * 2
    assert errors[1]["status"] == 503
    for one in orders(herd):
        done = herd.client.result(one.order, 120)
        assert (done.receipt.state, len(done.text.split())) == ("completed", 120)
