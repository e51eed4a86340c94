"""What is sent arrives, or is known soon not to have: with each broker, there, away and back."""

from __future__ import annotations

import socket
import time

import pytest

from herder.service.app import make_app
from herder.settings import load_settings
from tests.support.rabbit_server import RabbitServer, require_rabbit
from tests.support.redis_server import RedisServer, free_port
from workers.transport.sender import CelerySender
from workers.transport.tasks import NewTask
from workers.wire import HERDER_QUEUE, INFERENCE_QUEUE

SOON_S = 40
"""A wait that ends by itself and not by a test's patience; the longest here is 15 s."""


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def own_broker(request, tmp_path_factory):
    """A broker that these tests kill; each begins with it alive and finds it so."""
    if request.param == "redis":
        server = RedisServer(tmp_path_factory.mktemp("redis"))
        yield server
        server.kill()
    else:
        require_rabbit()
        server = RabbitServer(tmp_path_factory.mktemp("rabbit"))
        yield server
        server.close()


@pytest.fixture
def make_sender(tmp_path, clean_environment):
    senders = []

    def make(url):
        settings = load_settings(tmp_path, broker_url=url)
        senders.append(CelerySender(make_app(settings)))
        return senders[-1]

    yield make
    for sender in senders:
        sender.close()


def url_of(server):
    return server.url() if isinstance(server, RabbitServer) else server.url


def task(number=1, queue=INFERENCE_QUEUE):
    return NewTask(queue, "workers.infer", f"token-{number}", f"o-{number}.1", f"order={number}")


def waiting(server, queue=INFERENCE_QUEUE):
    if isinstance(server, RabbitServer):
        return server.waiting(queue)
    client = server.client()
    return sum(
        client.llen(key) for key in client.scan_iter(f"{queue}*") if client.type(key) == "list"
    )


def test_messages_arrive_where_no_queue_was_before(own_broker, make_sender):
    sender = make_sender(url_of(own_broker))
    sender.publish_many([task(number) for number in range(30)])
    sender.publish_many([task(1, HERDER_QUEUE), task(2)])
    assert waiting(own_broker) == 31
    assert waiting(own_broker, HERDER_QUEUE) == 1


def test_a_broker_that_is_away_is_known_at_once_and_used_again_when_it_is_back(
    own_broker, make_sender
):
    sender = make_sender(url_of(own_broker))
    sender.publish_many([task()])
    own_broker.kill()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(OSError, match="out of reach"):
            sender.publish_many([task()])
        assert time.monotonic() - began < SOON_S
    own_broker.start()
    before = waiting(own_broker) if isinstance(own_broker, RabbitServer) else 0
    sender.publish_many([task()])
    assert waiting(own_broker) == before + 1


def test_a_connection_that_died_while_nobody_used_it_costs_no_message(own_broker, make_sender):
    sender = make_sender(url_of(own_broker))
    sender.publish_many([task()])
    own_broker.kill()
    own_broker.start()
    sender.publish_many([task()])
    assert waiting(own_broker) >= 1


def test_a_server_that_never_answers_is_given_up(make_sender):
    """Connections are taken and nothing is ever said; so it is where packets are dropped."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        for url in (f"redis://127.0.0.1:{port}/0", f"amqp://a:b@127.0.0.1:{port}//"):
            began = time.monotonic()
            with pytest.raises(OSError, match="out of reach"):
                make_sender(url).publish_many([task()])
            assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("scheme", ["redis://127.0.0.1:{}/0", "amqp://a:b@127.0.0.1:{}//"])
def test_where_nobody_listens_it_is_said_so(make_sender, scheme):
    with pytest.raises(OSError, match="out of reach"):
        make_sender(scheme.format(free_port())).publish_many([task()])


def test_what_cannot_be_confirmed_is_not_taken_for_sent(rabbit_server, make_sender):
    """A RabbitMQ short of memory reads no messages; it is given seconds, and no more."""
    sender = make_sender(rabbit_server.url())
    sender.publish_many([task()])
    rabbit_server.ctl("set_vm_memory_high_watermark", "0")
    try:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(OSError, match="out of reach"):
                sender.publish_many([task()])
            assert time.monotonic() - began < SOON_S
    finally:
        rabbit_server.ctl("set_vm_memory_high_watermark", "0.4")
    sender.publish_many([task()])


def test_what_no_queue_would_get_is_sent_again_to_one_that_is_made(rabbit_server, make_sender):
    rabbit_server.clear()
    sender = make_sender(rabbit_server.url())
    sender.publish_many([task(1)])
    with rabbit_server.channel() as channel:
        channel.queue_delete(INFERENCE_QUEUE)  # the exchange stays, and leads nowhere
    sender.publish_many([task(2)])
    assert rabbit_server.waiting(INFERENCE_QUEUE) == 1
    rabbit_server.clear()
    sender.publish_many([task(3)])
    assert rabbit_server.waiting(INFERENCE_QUEUE) == 1


def test_the_best_level_is_served_first_on_rabbitmq(rabbit_server, make_sender):
    rabbit_server.clear()
    sender = make_sender(rabbit_server.url())
    levels = [0, 9, 3, 9, 5]
    sender.publish_many(
        [
            NewTask(INFERENCE_QUEUE, "workers.infer", f"{level}-{place}", f"o-{place}.1", "", level)
            for place, level in enumerate(levels)
        ]
    )
    served = []
    with rabbit_server.channel() as channel:
        while (got := channel.basic_get(INFERENCE_QUEUE, no_ack=True)) is not None:
            served.append(got.properties["priority"])
    assert served == [9, 9, 5, 3, 0]
