"""The names of what travels: tasks and their labels, queues, streams and keys in Redis."""

from __future__ import annotations

INFERENCE_QUEUE = "inference"
HERDER_QUEUE = "herder"
WORKER_QUEUES = f"{INFERENCE_QUEUE}."
"""The beginning of the names of the workers' own queues."""
BEATS_STREAM = "beats"

INFER_TASK = "workers.infer"
HELLO_TASK = "workers.hello"
OUTCOME_TASK = "herder.outcome"
NUDGE_TASK = "herder.nudge"
NUDGE_ID = "nudge"


def job_label(order: str, multiplier: str, tokens: int) -> str:
    """Return the words by which people who watch know an attempt: never a prompt.

    A narrow column shows its beginning, and the order's id stands in the task's id as well.
    """
    return f"multiplier={multiplier} tokens={tokens} order={order}"


def hello_id(instance: str, number: int) -> str:
    """Return the Celery task id of a hello to a worker instance."""
    return f"hello.{instance}.{number}"


def worker_queue(instance: str) -> str:
    """Return the Celery queue that one worker instance consumes, and no other."""
    return f"{WORKER_QUEUES}{instance}"


def control_stream(instance: str) -> str:
    """Return the Redis stream on which a worker instance hears from the herders."""
    return f"control:{instance}"


def prompt_key(request: str) -> str:
    """Return the Redis key under which a prompt waits to be counted."""
    return f"prompt:{request}"


def counted_key(request: str) -> str:
    """Return the Redis key under which the number of its tokens is answered."""
    return f"counted:{request}"


def text_stream(order: str, attempt: int) -> str:
    """Return the Redis stream that carries the provisional text of an attempt."""
    return f"text:{order}:{attempt}"
