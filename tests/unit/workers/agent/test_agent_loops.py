"""Each background loop of a worker outlives what nobody foresaw: a dead thread would look alive."""

from __future__ import annotations

import threading

import pytest

from tests.support.wait import wait_for
from tests.unit.workers.agent.test_agent import HERDER, Bench
from workers.agent.outcomes import OutcomeBox
from workers.agent.texts import TextFlusher
from workers.wire import AttemptRef, Beat, CancelAttempt, Outcome, control_stream, seal

ONCE = [ZeroDivisionError("planted"), SystemExit("planted"), UnicodeError("planted")]


class Once:
    """Raises at the first call, and does the real thing from then on."""

    def __init__(self, raised, real):
        self.calls, self._raised, self._real = 0, raised, real

    def __call__(self, *given, **more):
        self.calls += 1
        if self.calls == 1:
            raise self._raised
        return self._real(*given, **more)


@pytest.fixture
def bench(tmp_path, clean_environment):
    made = Bench(tmp_path, beat_s=1)
    yield made
    made.agent.drain(grace_s=0)
    made.agent.close(timeout_s=0)


@pytest.mark.parametrize("raised", ONCE, ids=repr)
def test_beats_go_on_in_the_order_of_their_numbers(bench, raised):
    broken = bench.streams.add_beat = Once(raised, bench.streams.add_beat)
    wait_for(lambda: broken.calls > 2, "beats after the failure")
    numbers = [beat.number for beat in bench.streams.said(Beat)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("raised", ONCE, ids=repr)
def test_control_is_heard_on_and_nothing_is_obeyed_twice(bench, raised):
    stop = CancelAttempt(held=AttemptRef(order="o-1", attempt=1, nonce="n"), reason="void")
    token = seal(stop, HERDER, sender="herder", audience=control_stream("w-1"))
    entries = [("1-1", "first"), ("1-2", token), ("1-3", "last")]
    heard, asked = [], []

    def read(_instance, after, *, block_ms):
        asked.append(after)
        left = [entry for entry in entries if after == "0" or entry[0] > after]
        if not left:
            threading.Event().wait(min(block_ms, 20) / 1000)
        return left

    bench.agent.hear = Once(raised, heard.append)
    bench.streams.read_control = read
    wait_for(lambda: "last" in heard, "what came after the one that could not be heard")
    assert heard == [token, "last"]


def test_a_control_message_that_cannot_be_read_shows_nothing_of_itself(bench, monkeypatch):
    import structlog

    import workers.agent.agent as module

    def broken(token, *_, **__):
        raise MemoryError(token)

    monkeypatch.setattr(module, "unseal", broken)
    with structlog.testing.capture_logs() as logs:
        bench.agent.hear("the nonce")
    (line,) = (line for line in logs if line["event"] == "control_unreadable")
    assert line["reason"] == "MemoryError"
    assert "the nonce" not in str(logs)


@pytest.mark.parametrize("raised", ONCE, ids=repr)
def test_texts_are_flushed_on(raised):
    sent = []

    class Streams:
        add_texts = Once(raised, sent.extend)

    flusher = TextFlusher(Streams())
    add = flusher.open("o-1", 1, 10)
    flusher.start()
    add("lost", 1, 0, end=False)
    wait_for(lambda: Streams.add_texts.calls == 1, "the failure")
    add("kept", 2, 0, end=True)
    wait_for(lambda: [piece.text for piece in sent] == ["kept"], "what came after it")
    add("the last", 3, 0, end=True)
    flusher.stop()
    assert [(piece.text, piece.generated) for piece in sent] == [("kept", 2), ("the last", 3)]


@pytest.mark.parametrize("raised", ONCE, ids=repr)
def test_outcomes_are_sent_on_and_on_stop_the_rest(raised):
    sent = []

    class Sender:
        publish_many = Once(raised, sent.extend)

    clock = [100.0]
    box = OutcomeBox(
        Sender(),
        lambda body: ",".join(one.order for one in body.outcomes),
        resend_s=5,
        others_run=lambda: False,
        clock=lambda: clock[0],
    )
    box.start()

    def put(order):
        box.put(order, Outcome(order=order, attempt=1, nonce="n", result="handed_back"))

    put("o-1")
    wait_for(lambda: Sender.publish_many.calls == 1, "the failure")
    put("o-2")
    wait_for(lambda: [task.token for task in sent] == ["o-2"], "the other outcome")
    clock[0] += 5
    put("o-3")
    wait_for(lambda: "o-1" in str([task.token for task in sent]), "the first, sent again")
    box.stop()
    assert "o-3" in str([task.token for task in sent])


def test_a_worker_that_is_stuck_is_told_of_though_it_cannot_beat(bench, monkeypatch):
    bench.streams.down = True
    monkeypatch.setattr(type(bench.engine), "step_age_s", property(lambda _: 1e6))
    wait_for(lambda: bench.stuck, "on_stuck")
