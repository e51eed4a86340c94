"""Celery's events: what they show of an end, and on which thread they go out."""

from __future__ import annotations

import threading

import pytest
from celery import Celery

from workers.transport.monitoring import LoopDispatcher, ShownRequest, node_name, shown_as


def test_a_task_that_fills_the_buffer_has_the_loop_send_it():
    app = Celery("events", broker="memory://", set_as_current=False)
    asked = []
    with app.connection() as connection:
        dispatcher = LoopDispatcher(
            connection,
            app=app,
            hostname="worker@here",
            buffer_group=["task"],
            on_send_buffered=lambda: asked.append(threading.get_ident()),
        )
        sent_by = []
        dispatcher.producer.publish = lambda *_, **__: sent_by.append(threading.get_ident())

        def tell():
            for number in range(3 * dispatcher.buffer_limit):
                dispatcher.send("task-succeeded", uuid=str(number))

        thread = threading.Thread(target=tell)
        thread.start()
        thread.join()
        assert asked
        assert sent_by == []
        dispatcher.flush()
        assert sent_by == [threading.get_ident()]


class Shown(ShownRequest):
    """A request of which only the events matter."""

    def __init__(self, task_id):
        self.id = task_id
        self.sent = []
        self._eventer = self._task = self
        self.enabled = self.send_events = True

    def send(self, kind, **fields):
        assert fields.pop("uuid") == self.id
        self.sent.append((kind, fields))


def events_of(end, kind="task-succeeded", **fields):
    request = Shown("o-1.1")
    if end is not None:
        assert shown_as("o-1.1", end) == end
    request.send_event(kind, **fields)
    return request.sent


RETURNED = {"result": "what it returned", "runtime": 0.5}


def test_a_failure_is_shown_by_its_code_alone():
    end = {"status": "failed", "code": "prompt_too_long", "tokens": 0}
    told = [("task-failed", {"exception": "prompt_too_long", "runtime": 0.5})]
    assert events_of(end, **RETURNED) == told


@pytest.mark.parametrize("status", ["cancelled", "deadline", "void", "handed_back"])
def test_what_was_called_off_is_shown_as_revoked(status):
    ((kind, fields),) = events_of({"status": status, "tokens": 3}, **RETURNED)
    assert kind == "task-revoked"
    assert fields["expired"] is (status == "deadline")
    assert fields["result"] == "what it returned"


def test_an_answer_is_a_success_and_a_repeated_message_shows_nothing():
    assert events_of({"status": "completed", "tokens": 3}, **RETURNED) == [
        ("task-succeeded", RETURNED)
    ]
    assert events_of({"status": "repeated", "tokens": 0}, **RETURNED) == []


def test_an_unexpected_exceptions_words_and_trace_are_not_shown():
    told = events_of(None, "task-failed", exception="KeyError('Quagmire')", traceback="Quagmire")
    assert told == [("task-failed", {"exception": "worker_error"})]


def test_an_end_is_never_shown_as_another_tasks():
    shown_as("o-2.1", {"status": "failed", "code": "stub_failure", "tokens": 0})
    assert events_of(None, **RETURNED) == [("task-succeeded", RETURNED)]
    assert events_of(None, **RETURNED) == [("task-succeeded", RETURNED)]


def test_a_worker_is_named_as_celery_names_it():
    assert node_name("alpha") == "alpha@herd"
    assert node_name("alpha@home") == "alpha@home"
