"""A herd whose RabbitMQ users may do what their role needs, and what they may not."""

from __future__ import annotations

import amqp
import pytest

from herder.service.app import make_app
from herder.settings import load_settings
from tests.support.rabbit_server import RIGHTS
from tests.support.wait import wait_for
from workers.transport.sender import CelerySender
from workers.transport.tasks import NewTask
from workers.wire import HERDER_QUEUE, INFERENCE_QUEUE


def refused(rabbit, name, act):
    """The broker closes the channel of a user who has no right to that."""
    with pytest.raises(amqp.AccessRefused), rabbit.channel(name, confirm_publish=True) as channel:
        act(channel)


def publish(queue, exchange):
    return lambda channel: channel.basic_publish(
        amqp.Message("x"), exchange=exchange, routing_key=queue
    )


@pytest.fixture
def herd(make_herd, rabbit_server):
    """Each process with a user of its own role; the worker comes before the herder."""
    rabbit_server.clear()
    return make_herd(HERD_BROKER_URL=rabbit_server.url("client"))


def test_a_herd_works_with_the_rights_of_the_documentation_and_no_others(herd, rabbit_server):
    worker = herd.begin_worker(HERD_BROKER_URL=rabbit_server.url("worker"))
    worker.says("ready")
    herder = herd.start_herder(HERD_BROKER_URL=rabbit_server.url("herder"))
    wait_for(lambda: herd.worker_state(worker) == "alive", "the worker joins")
    orders = [herd.submit(f"Number {number}", 5) for number in range(5)]
    for order in orders:
        assert order.result(timeout=60).receipt.worker == worker.name
    assert "ACCESS_REFUSED" not in herd.logs

    rabbit = rabbit_server
    # A worker may send home, and take what is there for workers.
    refused(rabbit, "worker", publish(INFERENCE_QUEUE, INFERENCE_QUEUE))
    refused(rabbit, "worker", publish(INFERENCE_QUEUE, ""))
    refused(rabbit, "worker", publish(HERDER_QUEUE, ""))
    refused(rabbit, "worker", lambda channel: channel.basic_consume(HERDER_QUEUE))
    refused(rabbit, "worker", lambda channel: channel.basic_get(HERDER_QUEUE))
    refused(rabbit, "worker", lambda channel: channel.queue_purge(HERDER_QUEUE))
    refused(rabbit, "worker", lambda channel: channel.queue_delete(HERDER_QUEUE))
    refused(
        rabbit,
        "worker",
        lambda channel: channel.queue_bind(INFERENCE_QUEUE, HERDER_QUEUE, HERDER_QUEUE),
    )
    # A program that submits may wake the herders, and nothing else.
    refused(rabbit, "client", publish(INFERENCE_QUEUE, INFERENCE_QUEUE))
    refused(rabbit, "client", lambda channel: channel.basic_get(INFERENCE_QUEUE))
    refused(rabbit, "client", lambda channel: channel.queue_declare("mine"))
    # Flower sees the events.
    refused(rabbit, "flower", lambda channel: channel.basic_get(INFERENCE_QUEUE))
    refused(rabbit, "flower", publish(HERDER_QUEUE, HERDER_QUEUE))
    assert herder.alive
    assert worker.alive


def test_no_right_is_an_error_like_a_broker_that_is_away(
    rabbit_server, tmp_path, clean_environment
):
    rabbit_server.clear()
    settings = load_settings(tmp_path, broker_url=rabbit_server.url("client"))
    sender = CelerySender(make_app(settings))
    for queue in (INFERENCE_QUEUE, HERDER_QUEUE):  # neither is there, nor may be made
        with pytest.raises(OSError, match="out of reach"):
            sender.publish_many([NewTask(queue, "workers.infer", "token", "o-1.1", "")])
    sender.close()


def test_each_user_is_tested_here_or_is_the_tests_own():
    assert set(RIGHTS) == {"herd", "herder", "worker", "client", "flower"}
