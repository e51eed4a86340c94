"""Celery's settings for both apps, each with its reason. Measured, not copied from somewhere."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from workers.transport.broker import MAX_OWN, OWN_TTL_S, use_sturdy_transports
from workers.transport.settings import TransportSettings
from workers.wire import INFERENCE_QUEUE, WORKER_QUEUES, worker_queue

PRIORITY_LEVELS = 10


def celery_config(
    settings: TransportSettings, *, queue: str, concurrency: int, pulls: bool
) -> dict[str, Any]:
    """Return the settings of one Celery app.

    Args:
        settings: where the broker is, and whether events are sent.
        queue: the one queue that the app consumes.
        concurrency: threads that run tasks.
        pulls: True where a message may only be taken for a free thread (a worker's slots), False
            where taking ahead is faster (a herder's short tasks).
    """
    redis = settings.broker_is_redis
    use_sturdy_transports()
    return {
        "broker_url": settings.broker,
        # The broker may start after us, restart, or be away for a night: never give up.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A channel that RabbitMQ closes (a run outlasted its consumer_timeout, say) is opened anew.
        "broker_channel_error_retry": True,
        # A peer that vanished without a word is missed within a minute.
        "broker_heartbeat": 30,
        "broker_transport_options": _redis_options(queue) if redis else _amqp_options(),
        # A thread pool on both sides: one process holds one model, and a solo pool stalled for
        # seconds on RabbitMQ. It cannot cancel or time out; that is the engine's work.
        "worker_pool": "workers.transport.guard:TaskPool",
        "worker_concurrency": concurrency,
        "worker_consumer": "workers.transport.guard:GuardedConsumer",
        # Early acks: losing a message is the lease's business, not the broker's. On Redis late
        # acks cost more than half of a worker's time, and redelivery runs a long task twice. On
        # RabbitMQ a worker with early acks takes twice its slots, so there acks are late;
        # redelivery does no harm, because an attempt is bound to one worker.
        "task_acks_late": pulls and not redis,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": pulls and redis,
        # Unsigned orders to shut down come over remote control otherwise.
        "worker_enable_remote_control": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # After a connection is lost, Celery would prefetch less and raise the count again as tasks
        # end: on their threads, which then read the connection beside the loop. One takes the
        # answer that the other waits for, and the loop stood still for 30 to 90 s. What is
        # delivered again is refused at once (`Repeated`), so there is nothing to reduce.
        "worker_enable_prefetch_count_reduction": False,
        # No result backend: it would fail any task id for whoever sends an unknown task name.
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",  # anything else breaks what Flower reads
        "worker_send_task_events": settings.events,
        "task_send_sent_event": False,
        "task_queues": [make_queue(queue, redis=redis, taken=pulls)],
        "task_default_queue": queue,
        "task_create_missing_queues": False,
        # What a broker loses is sent again, so nothing of it need wait for a disk.
        "task_default_delivery_mode": "transient",
        "task_default_priority": 0 if not redis else PRIORITY_LEVELS - 1,
        # Ours is a lease, not a limit of Celery's: the thread pool would ignore one.
        "task_time_limit": None,
        "worker_redirect_stdouts": False,
        "worker_hijack_root_logger": False,
        # Our own processes keep a connection or two. Flower asks with up to 32 threads at once, of
        # which each takes two: with fewer than that they wait for each other for ever.
        "broker_pool_limit": 100,
    }


class TakenQueue(Queue):  # type: ignore[misc]
    """A queue that a worker takes from and may not send to.

    Binding a queue to an exchange takes the right to write to it, so its consumer only makes sure
    of the queue; who sends to it declares the exchange and the binding (see `sender`).
    """

    def declare(self, nowait: bool = False, channel: Any = None) -> str:
        """Declare the queue alone."""
        self.queue_declare(nowait=nowait, channel=channel)
        return str(self.name)


def make_queue(name: str, *, redis: bool, taken: bool = False) -> Queue:
    """Return a queue as both sides declare it; RabbitMQ must be told of priorities beforehand.

    Args:
        name: of the queue, of the exchange that leads to it, and the routing key.
        redis: whether the broker is Redis.
        taken: True for who only takes from it.
    """
    kind = TakenQueue if taken and not redis else Queue
    arguments = None if redis else {"x-max-priority": PRIORITY_LEVELS - 1}
    return kind(name, Exchange(name, type="direct"), routing_key=name, queue_arguments=arguments)


@lru_cache(maxsize=1024)
def queue_named(name: str, *, redis: bool, taken: bool = False) -> Queue:
    """Return a queue by its name: one that all of a role share, or a worker's own.

    Args:
        name: of the queue.
        redis: whether the broker is Redis.
        taken: True for who only takes from it.
    """
    if not name.startswith(WORKER_QUEUES):
        return make_queue(name, redis=redis, taken=taken)
    kind = TakenQueue if taken else Queue
    # On Redis it is a list that expires (see `broker`), without priorities on either: what it
    # holds finds a free slot at once.
    ttl_ms = 1000 * OWN_TTL_S
    bounds = {"x-expires": ttl_ms, "x-message-ttl": ttl_ms, "x-max-length": MAX_OWN}
    arguments = None if redis else bounds
    exchange = Exchange(INFERENCE_QUEUE, type="direct")
    return kind(name, exchange, routing_key=name, queue_arguments=arguments)


def consume_own_queue(app: Celery, instance: str, *, redis: bool) -> bool:
    """Have a worker consume a queue of its own beside the one that all workers share.

    Args:
        app: the worker's app, once Celery has read `-Q` and `-X`.
        instance: the worker instance.
        redis: whether the broker is Redis.

    Returns:
        False for one that does not consume the shared queue: it was told to take nothing.
    """
    queues = app.amqp.queues
    if INFERENCE_QUEUE not in queues.consume_from:
        return False
    queues.select_add(queue_named(worker_queue(instance), redis=redis, taken=True))
    return True


def _amqp_options() -> dict[str, Any]:
    # A server that stops in mid-sentence is an error like any other, and not a wait without end.
    return {"read_timeout": 15, "write_timeout": 15}


def _redis_options(queue: str) -> dict[str, Any]:
    return {
        "ack_emulation": False,  # with it go the visibility timeout and half of the cost
        "queue_order_strategy": "priority",
        "priority_steps": list(range(PRIORITY_LEVELS)),
        "socket_timeout": 15,  # redis-py's own default of 5 s is shorter than a slow fsync
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "unacked_key": f"unacked.{queue}",  # one per role, so that broker users can be told apart
    }


def broker_priority(level: int, *, redis: bool) -> int:
    """Return a level (0 to 9, higher first) as the broker counts it: Redis serves 0 first."""
    return PRIORITY_LEVELS - 1 - level if redis else level
