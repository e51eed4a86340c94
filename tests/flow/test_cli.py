"""`herd submit` as a person types it, at a herd of real processes."""

from __future__ import annotations

import json
import signal

from tests.support.typed import typed


def test_the_answer_streams_and_the_receipt_follows(herd):
    worker = herd.start_worker(HERD_STUB_STEP_MS="150")
    slow = typed(herd, "submit", "A long story", "-n", "30", "--fee", "99")
    assert slow.stdout is not None
    assert slow.stderr is not None
    first = slow.stdout.read(1)  # 4.5 s of text, and the first of it is there before the end
    assert slow.poll() is None
    (order,) = herd.client.orders(limit=1)
    assert order.state in ("dispatched", "running")  # its claim may not have been read yet
    rest, receipt = slow.stdout.read(), slow.stderr.read()
    assert slow.wait(timeout=60) == 0
    assert first + rest == herd.client.answer(order.order).text + "\n"
    told, receipt = receipt.splitlines()
    assert told == f"Order {order.order} is queued.", "its id before all else"
    assert "charged 99 of 99 winston" in receipt
    assert worker.name in receipt

    whole = typed(herd, "submit", "Again", "-n", "3", "--json")
    out, said = whole.communicate(timeout=60)
    result = json.loads(out)
    assert whole.returncode == 0
    assert said == f"Order {result['receipt']['order']} is queued.\n"
    assert len(result["text"].split()) == result["usage"]["generated"] == 3
    assert result["receipt"]["state"] == "completed"


def test_ctrl_c_leaves_the_order_running(herd):
    herd.start_worker(HERD_STUB_STEP_MS="150")
    left = typed(herd, "submit", "A long story", "-n", "20")
    assert left.stdout is not None
    left.stdout.read(1)
    left.send_signal(signal.SIGINT)
    _, said = left.communicate(timeout=30)
    assert left.returncode == 130
    (order,) = herd.client.orders(limit=1)
    assert f"Order {order.order} continues" in said
    assert len(herd.client.result(order.order, 60).text.split()) == 20


def test_an_order_that_fails_ends_with_1_and_costs_nothing(herd):
    herd.start_worker()
    failed = typed(herd, "submit", "It is in vain [[fail]]", "-n", "5")
    out, said = failed.communicate(timeout=60)
    assert (failed.returncode, out) == (1, "")
    told, why = said.splitlines()
    assert told.endswith("is queued.")
    assert "winston were returned" in why
    assert herd.client.accounts.balance("default").available == 1_000_000
