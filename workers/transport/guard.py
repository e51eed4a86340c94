"""The consumer that refuses what is not ours, and the pool that wakes it.

A malformed message kills a Celery worker, and callbacks, expiry and retries in a message's
headers run unsigned. So each message is checked before Celery unpacks it, and what is left of
its headers is what the signed envelope says.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import structlog
from celery.concurrency.thread import ApplyResult
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer
from vine import promise as new_promise

from workers.transport.broker import refuse_compression
from workers.transport.monitoring import LoopDispatcher
from workers.wire import MAX_ENVELOPE_BYTES, Envelope, WireError

_log = structlog.get_logger("workers.transport")

MAX_RETRY_S = 2
"""The longest wait between two tries to reach the broker. Celery's own grows to 30 s, in which the
orders would wait for a broker that is back."""

Check = Callable[[str, str], "tuple[Envelope, str, str]"]
"""(task name, token) -> the envelope, the task id that it stands for, and the label for people.
Raises WireError for what is not ours, and Repeated for what was taken before."""


class Repeated(Exception):
    """It is ours, and was taken before: it is dropped, and takes no thread."""


class MessageGuard:
    """Checks messages and keeps their envelopes for the tasks, so that each is verified once."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._checked: dict[tuple[str, str], Envelope] = {}

    def admit(self, message: Any) -> None:
        """Check a message and strip its headers.

        Raises:
            WireError: it is not ours.
            Repeated: it was taken before.
        """
        if message.content_type != "application/json":
            raise WireError("wrong_content_type", str(message.content_type)[:40])
        headers = message.headers
        body = message.body
        if not isinstance(headers, dict) or not isinstance(body, (str, bytes, memoryview)):
            raise WireError("malformed", "not a Celery task")
        if len(body) > MAX_ENVELOPE_BYTES + 1024:
            raise WireError("too_large", f"{len(body)} bytes")
        name, task_id = headers.get("task"), headers.get("id")
        if not isinstance(name, str) or not isinstance(task_id, str):
            raise WireError("malformed", "no task name or id")
        token = _only_argument(bytes(body) if isinstance(body, memoryview) else body)
        envelope, expected_id, label = self._check(name, token)
        if task_id != expected_id:
            raise WireError("malformed", "the task's id is not that of the envelope")
        message.headers = {
            "lang": "py",
            "task": name,
            "id": task_id,
            "root_id": task_id,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "argsrepr": "",
            "kwargsrepr": label,
            "ignore_result": True,
        }
        # Embedded callbacks and chains are gone with the body that carried them.
        message.body = json.dumps([[token], {}, {}])
        message._decoded_cache = None
        self._checked[(task_id, token)] = envelope

    def take(self, task_id: str, token: str) -> Envelope | None:
        """Return the envelope of a task that runs now; None if it came twice and was taken."""
        return self._checked.pop((task_id, token), None)


def _only_argument(body: str | bytes) -> str:
    try:
        args = json.loads(body)[0]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise WireError("malformed", "no task body") from None
    if not isinstance(args, list) or len(args) != 1 or not isinstance(args[0], str):
        raise WireError("malformed", "a task here has one argument, a signed envelope")
    return args[0]


class GuardedConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer with the app's guard before it.

    Mingle and gossip are off: they gossip over the unsigned control channel, and nothing here
    needs them.

    Connections to RabbitMQ are used by the event loop alone, since two threads that wait for
    answers on one take each other's. Celery hands over acknowledgements by itself (`call_soon`);
    `worker_enable_prefetch_count_reduction` and `LoopDispatcher` see to the rest.
    """

    def __init__(
        self, *args: Any, worker_options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        options = {**(worker_options or {}), "without_mingle": True, "without_gossip": True}
        refuse_compression()
        # What runs goes on when a connection breaks, and that is said in our settings; Celery would
        # ask about it each time.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning, module="celery")
        app = kwargs["app"]
        app.events.dispatcher_cls = f"{LoopDispatcher.__module__}:{LoopDispatcher.__name__}"
        super().__init__(*args, worker_options=options, **kwargs)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes."""
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=1, interval_step=1, interval_max=MAX_RETRY_S
        )
        return super().ensure_connected(conn)

    def cancel_active_requests(self) -> None:
        """Hand back what runs: Celery asks for this where it is to stop at once (SIGQUIT).

        Its own way would be to kill what runs it, and a thread cannot be killed.
        """
        self.app.stop_at_once()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Kombu could not unpack a body; Celery would log all of it, in twenty lines."""
        _log.warning("message_refused", reason=f"unreadable: {type(exc).__name__}")
        message.reject_log_error(_log, self.connection_errors)

    def create_task_handler(self, promise: Any = new_promise) -> Callable[[Any], None]:
        """Celery's handler of messages, behind the guard."""
        handle = super().create_task_handler(promise)
        guard: MessageGuard = self.app.herd_guard

        def on_message(message: Any) -> None:
            try:
                guard.admit(message)
            except Repeated as error:
                _log.info("message_repeated", which=str(error))
            except WireError as error:
                _log.warning("message_refused", reason=str(error))
            except Exception as error:  # noqa: BLE001
                # Whatever a stranger's bytes can raise, this worker lives on.
                _log.warning("message_refused", reason=type(error).__name__)
            else:
                handle(message)
                return
            message.reject_log_error(_log, self.connection_errors)

        return on_message


class TaskPool(ThreadPool):  # type: ignore[misc]
    """Celery's thread pool, which wakes the event loop when a task ends.

    With early acks and `worker_disable_prefetch` the loop reads no queue while all threads are
    busy, and a thread that finishes does not wake it: a freed slot waited up to a second.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def register_with_event_loop(self, hub: Any) -> None:
        """Celery calls this whenever its loop begins."""
        hub.add_reader(self._wake_read, self._drain)

    def _drain(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return

    def _wake(self, _done: Future[Any]) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # the pipe is full: the loop is as good as awake

    def on_apply(self, *args: Any, **kwargs: Any) -> ApplyResult:
        """Run a task on a thread."""
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(self._wake)
        return result
