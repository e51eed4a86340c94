"""What a herder tells Flower on behalf of workers: best effort, bounded, and without a prompt."""

from __future__ import annotations

import json

import pytest
from celery import Celery

from tests.support.wait import wait_for
from workers.transport import event_sender
from workers.transport.event_sender import EventSender
from workers.transport.tasks import LostTask


def lost(number):
    label = "multiplier=2.000 tokens=10 order=o"
    return LostTask("workers.infer", f"o-{number}.1", label, "alpha", "lapsed")


class Bench:
    """A sender whose broker is here, or away."""

    def __init__(self, monkeypatch, **options):
        self.now_s, self.away, self.sent = 1000.0, False, []
        app = Celery("events", broker="memory://", set_as_current=False)
        app.conf.event_serializer = "json"
        self.sender = EventSender(app, clock_s=lambda: self.now_s, **{"enabled": True, **options})
        bench = self

        class Producer:
            def __init__(self, *_, **__):
                """Takes what a producer takes."""

            def publish(self, events, **options):
                if bench.away:
                    raise ConnectionError
                assert options["serializer"] == "json"
                bench.sent += json.loads(json.dumps(events))

        monkeypatch.setattr(app.amqp, "Producer", Producer)

    @property
    def ids(self):
        return [event["uuid"] for event in self.sent]


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


def test_it_tells_which_task_of_which_worker_failed_and_why(bench):
    bench.sender.put([lost(1)])
    bench.now_s = 1007.0
    bench.sender.send()
    (event,) = bench.sent
    assert event["type"] == "task-failed"
    assert (event["uuid"], event["exception"]) == ("o-1.1", "lapsed")
    assert (event["hostname"], event["timestamp"]) == ("alpha@herd", 1000.0)
    assert event["kwargs"] == "multiplier=2.000 tokens=10 order=o"
    assert "traceback" not in event
    bench.sender.send()
    assert len(bench.sent) == 1


def test_what_the_broker_does_not_take_is_sent_later_in_its_order(bench):
    bench.away = True
    bench.sender.put([lost(number) for number in range(150)])
    for _ in range(2):
        with pytest.raises(ConnectionError):
            bench.sender.send()
    bench.away = False
    bench.sender.send()
    assert bench.ids == [f"o-{number}.1" for number in range(150)]


def test_neither_too_many_nor_too_old_ones_are_kept(bench):
    bench.away = True
    bench.sender.put([lost(number) for number in range(event_sender.MAX_WAITING + 5)])
    with pytest.raises(ConnectionError):
        bench.sender.send()
    bench.away = False
    bench.sender.send()
    assert len(bench.sent) == event_sender.MAX_WAITING
    bench.sent.clear()
    bench.sender.put([lost(1)])
    bench.now_s += event_sender.KEEP_S + 1
    bench.sender.put([lost(2)])
    bench.sender.send()
    assert bench.ids == ["o-2.1"]


def test_without_events_nothing_is_kept_or_sent(monkeypatch):
    bench = Bench(monkeypatch, enabled=False)
    bench.sender.start()
    bench.sender.put([lost(1)])
    bench.sender.send()
    bench.sender.stop()
    assert bench.sent == []


def test_its_own_thread_sends_what_is_handed_in(bench):
    bench.sender.start()
    bench.sender.put([lost(1)])
    wait_for(lambda: bench.ids == ["o-1.1"], "it is sent")
    bench.sender.stop()
