"""Outcomes are sent until they are confirmed, whatever the broker does."""

from __future__ import annotations

import pytest

from tests.support.wait import wait_for
from workers.agent.outcomes import OutcomeBox
from workers.wire import Outcome


class FakeSender:
    """A broker that takes what it is sent, or raises."""

    def __init__(self):
        self.sent, self.trouble = [], None

    def publish_many(self, tasks):
        if self.trouble is not None:
            raise self.trouble
        self.sent += tasks


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def outcome(order):
    return Outcome(order=order, attempt=1, nonce="n", result="handed_back")


@pytest.fixture
def sender():
    return FakeSender()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_box(sender, clock):
    def make(seal=lambda body: ",".join(one.order for one in body.outcomes)):
        return OutcomeBox(sender, seal, resend_s=5, others_run=lambda: False, clock=clock)

    return make


def test_what_is_not_confirmed_is_sent_again_each_time_later(make_box, sender, clock):
    box = make_box()
    box.put("o-1:1", outcome("o-1"))
    assert box.send()
    for wait_s in (5, 10, 20, 40, 60, 60):
        clock.now_s += wait_s - 0.1
        assert not box.send()
        clock.now_s += 0.1
        assert box.send()
    assert len(sender.sent) == 7


def test_a_broker_that_was_away_for_long_is_tried_as_soon_as_at_first(make_box, sender, clock):
    box = make_box()
    box.put("o-1:1", outcome("o-1"))
    sender.trouble = ConnectionError("the broker is out of reach")
    for _ in range(6):
        assert box.send()
        clock.now_s += 5
    sender.trouble = None
    assert box.send()
    assert [task.token for task in sender.sent] == ["o-1"]
    clock.now_s += 5
    assert box.send(), "it was sent once, and is not confirmed"


def test_one_that_cannot_be_sealed_holds_up_no_other_and_becomes_a_failure(make_box, sender):
    def seal(body):
        if any(one.text == "bad" for one in body.outcomes):
            raise ValueError("it quotes the text: bad")
        return body

    box = make_box(seal)
    for number in range(9):
        text = "bad" if number == 4 else "good"
        one = Outcome(order=f"o-{number}", attempt=1, nonce="n", result="completed", text=text)
        box.put(f"o-{number}:1", one)
    assert box.send()
    assert not box.send()
    sent = [one for task in sender.sent for one in task.token.outcomes]
    assert [one.order for one in sent] == [f"o-{number}" for number in range(9)]
    assert [one.result for one in sent] == ["completed"] * 4 + ["failed"] + ["completed"] * 4
    (failed,) = [one for one in sent if one.failure is not None]
    assert (failed.failure.code, failed.text) == ("outcome_not_sealed", "")
    assert len(box) == 9, "each is kept until it is confirmed"


def test_one_whose_failure_cannot_be_sealed_either_holds_up_no_other(make_box, sender, clock):
    def seal(body):
        if any(one.order == "bad" for one in body.outcomes):
            raise ValueError
        return body

    box = make_box(seal)
    for order in ("bad", "good"):
        box.put(f"{order}:1", outcome(order))
    assert box.send()
    assert not box.send(), "it is not tried again at once"
    assert [task.token.outcomes[0].order for task in sender.sent] == ["good"]
    clock.now_s += 5
    assert box.send()


def test_an_error_that_nobody_thought_of_does_not_end_the_sending(make_box, sender):
    broken = [True]

    def seal(body):
        if broken:
            broken.pop()
            raise MemoryError("for now")
        return body.outcomes[0].order

    box = make_box(seal)
    box.start()
    box.put("o-1:1", outcome("o-1"))
    box.put("o-2:1", outcome("o-2"))
    wait_for(lambda: not broken, "it fails once")
    box.put("o-3:1", outcome("o-3"))
    wait_for(lambda: sender.sent, "what comes next is sent")
    box.forget("o-1:1")
    box.stop()
