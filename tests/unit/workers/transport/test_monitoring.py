"""Celery's events go out on the event loop's thread, whoever has one to tell."""

from __future__ import annotations

import threading

from celery import Celery

from workers.transport.monitoring import LoopDispatcher


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
