"""`/metrics` in Prometheus form: this gateway's calls, and the herd as the database has it.

What begins with `llama_herder_http_` or `llama_herder_gateway_`, and what is Python's, is this
process's own. The rest is of the whole herd and the same at each gateway: with several, take one's,
or the highest. Counters of the herd begin with the first scrape, at nothing, as Prometheus expects
of a process that started; what happened between two scrapes is read from the events (see
`monitor.py`). Those of duties begin with the herd: herders keep them in the database. No
label names an account, an order or a key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from anyio.to_thread import run_sync
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herder.domain.order import ENDED, State
from herder.errors import HerdError
from herder.gateway.telemetry.duty_metrics import DutyMetrics
from herder.gateway.telemetry.monitor import Look, Monitor
from herder.store.monitor import Happening
from herder.version import __version__

QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds of calls, some of which hold a line for minutes."""
LONG = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
"""Seconds of orders, which may wait for hours."""
KEPT_S = 1.0
"""The time for which a scrape also answers those that come after it."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NOWHERE = "none"
"""The route of a call that fits none, or that was refused before one was looked for."""

_PLAIN = {
    "submitted": "submitted",
    "dispatched": "dispatches",
    "lapsed": "lapses",
    "handed_back": "hand_backs",
    "attempt_failed": "failed_attempts",
    "rebid": "rebids",
}
"""Events that are only counted, and the counter of each."""
_ENDS = frozenset(state.value for state in ENDED)


class GatewayMetrics:
    """The metrics of one gateway.

    Args:
        monitor: looks at the herd.
        clock_s: a clock that only rises, in seconds.
    """

    def __init__(self, monitor: Monitor, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._monitor = monitor
        self._clock_s = clock_s
        self._lock = asyncio.Lock()
        self._calls: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._pages: dict[str, bytes] = {}
        self._looked_s = float("-inf")
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, said: str, *labels: str) -> Counter:
            return Counter(f"llama_herder_{name}", said, labels, registry=registry)

        def gauge(name: str, said: str, *labels: str) -> Gauge:
            return Gauge(f"llama_herder_{name}", said, labels, registry=registry)

        def histogram(name: str, said: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                f"llama_herder_{name}", said, labels, buckets=buckets, registry=registry
            )

        self.build = gauge("build_info", "The version that is running.", "version")
        self.build.labels(__version__).set(1)

        # This gateway's own
        self.requests = counter(
            "http_requests", "Calls that were answered.", "route", "method", "status"
        )
        self.durations = histogram(
            "http_request_duration_seconds",
            "Seconds from a call's headers to the end of its answer, streams included.",
            QUICK,
            *("route", "method"),
        )
        self.open_requests = gauge("http_requests_in_progress", "Calls in progress.")
        self.streams = gauge("gateway_streams", "Open streams and long polls.")
        self.cancellations = gauge(
            "gateway_cancellations_waiting",
            "Orders that are to be cancelled once the database is back.",
        )
        self.dropped_cancellations = counter(
            "gateway_cancellations_dropped", "Orders whose cancellation was given up."
        )
        self.first_texts = histogram(
            "gateway_time_to_first_token_seconds",
            "Seconds from an order's submission to its first text, for texts streamed here from "
            "their beginning.",
            LONG,
            "model",
        )

        # The herd, now
        self.database_up = gauge("database_up", "1 if the database answered this scrape.")
        self.open_orders = gauge(
            "orders", "Open orders; above 1,000 queued, an estimate.", "model", "state"
        )
        self.orders_set_aside = gauge(
            "orders_set_aside",
            "Orders that could not be settled, and wait for an operator with their fees held.",
        )
        self.queue_tokens = gauge("queue_tokens", "Tokens that queued orders ask for.", "model")
        self.workers = gauge("workers", "Workers that send heartbeats.", "model", "state")
        self.slots = gauge("slots", "Sequences that a worker decodes at once.", "model", "worker")
        self.slots_in_use = gauge(
            "slots_in_use", "Slots that an order occupies.", "model", "worker"
        )
        self.outbox = gauge("outbox_messages", "Outbox messages that no herder has cleared yet.")
        self.listened = gauge(
            "listening_seconds",
            "Seconds in which a herder listened to the workers, since the herd began; rises by "
            "one each second.",
        )
        self.behind = gauge("events_behind", "Events that the next scrapes will count.")
        self.money = gauge(
            "ledger_winston",
            "What accounts have (circulating), how much of it is held, and what the outside has.",
            "part",
        )
        self.imbalance = gauge(
            "ledger_imbalance_winston",
            "The sum of all accounts, and of what is held on either side; anything but 0 means "
            "that money was lost.",
            "part",
        )
        self.overdrawn = gauge(
            "ledger_overdrawn_accounts", "Accounts that are below zero and must not be."
        )
        self.summed = gauge(
            "ledger_summed_timestamp_seconds",
            "When the ledger was last summed up, which happens each minute.",
        )

        # The herd, since the first scrape
        self.ended = counter("orders_ended", "Orders that ended.", "model", "state")
        self.plain = {
            kind: counter(f"orders_{name}" if kind == "submitted" else name, said, "model")
            for (kind, name), said in zip(
                _PLAIN.items(),
                (
                    "Orders that were accepted.",
                    "Dispatches of orders to the herd.",
                    "Attempts that nobody claimed, or whose worker fell silent.",
                    "Attempts that a worker handed back.",
                    "Attempts that failed and were tried again.",
                    "New bids for waiting orders.",
                ),
                strict=True,
            )
        }
        self.generated = counter("tokens_generated", "Tokens generated for ended orders.", "model")
        self.prompted = counter("tokens_prompted", "Prompt tokens of ended orders.", "model")
        self.charged = counter("charged_winston", "Winston charged for ended orders.", "model")
        self.returned = counter(
            "returned_winston", "Winston returned from ended orders' holds.", "model"
        )
        self.waits = histogram(
            "order_wait_seconds",
            "Seconds from submission to start, for ended orders that had started.",
            LONG,
            "model",
        )
        self.duties = DutyMetrics()
        registry.register(self.duties)
        self.runs = histogram(
            "order_run_seconds",
            "Seconds from start to end, for orders that had started.",
            LONG,
            "model",
        )

    # What this gateway did

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a call that was answered."""
        known = self._calls.get((route, method, status))
        if known is None:
            # Looked up once for each: there are as many as there are routes and answers.
            known = (
                self.requests.labels(route, method, status),
                self.durations.labels(route, method),
            )
            self._calls[route, method, status] = known
        count, duration = known
        count.inc()
        duration.observe(seconds)

    def began(self, model: str, seconds: float) -> None:
        """Count the start of a text that is streamed here."""
        self.first_texts.labels(model).observe(seconds)

    # Scrapes

    async def page(self, accept: str) -> tuple[bytes, str]:
        """Everything as it was a second ago at most, and the name of its form.

        Args:
            accept: the forms that the scraper takes, as its header says.
        """
        encode, content_type = choose_encoder(accept)
        async with self._lock:
            if self._clock_s() - self._looked_s >= KEPT_S:
                await run_sync(self.refresh)
                self._pages.clear()
                self._looked_s = self._clock_s()
            if content_type not in self._pages:
                self._pages[content_type] = await run_sync(encode, self.registry)
            return self._pages[content_type], content_type

    def refresh(self) -> None:
        """Look at the herd."""
        try:
            look = self._monitor.look()
        except HerdError:
            self._forget_herd()
            self.database_up.set(0)
            return
        self.database_up.set(1)
        self._show(look)
        self._count(look.happened, look.queues)

    def _forget_herd(self) -> None:
        """Forget the gauges of the herd: old values would pass for current ones."""
        for one in (
            *(self.open_orders, self.queue_tokens, self.workers, self.slots, self.slots_in_use),
            *(self.money, self.imbalance),
        ):
            one.clear()

    def _show(self, look: Look) -> None:
        self._forget_herd()
        for model, queue in look.queues.items():
            self.open_orders.labels(model, State.QUEUED.value).set(queue.orders)
            self.queue_tokens.labels(model).set(queue.tokens)
            for state in (State.DISPATCHED.value, State.RUNNING.value):
                self.open_orders.labels(model, state).set(look.out.get((model, state), 0))
            for state in ("alive", "draining", "unreached"):
                self.workers.labels(model, state).set(0)
        for worker in look.workers:
            self.workers.labels(worker.model, worker.shown_state).inc()
            # Two of one name count together.
            self.slots.labels(worker.model, worker.name).inc(worker.slots)
            self.slots_in_use.labels(worker.model, worker.name).inc(worker.out + worker.strays)
        self.orders_set_aside.set(look.set_aside)
        self.outbox.set(look.unsent)
        self.listened.set(look.heard.heard_s)
        self.behind.set(look.behind)
        totals = look.totals
        for part, amount in (
            *(("circulating", totals.circulating), ("held", totals.held)),
            ("outside", totals.outside),
        ):
            self.money.labels(part).set(amount)
        self.imbalance.labels("posted").set(totals.imbalance)
        self.imbalance.labels("held").set(totals.imbalance_of_holds)
        self.overdrawn.set(totals.overdrawn)
        self.summed.set(look.totals_us / 1e6)
        self.duties.counts = look.duties

    def _count(self, happened: Iterable[Happening], models: Iterable[str]) -> None:
        for model in models:
            # At nothing before the first, or a rate would miss the first.
            for counter in (*self.plain.values(), self.generated, self.prompted):
                counter.labels(model)
            for amount in (self.charged, self.returned, self.waits, self.runs, self.first_texts):
                amount.labels(model)
            for state in _ENDS:
                self.ended.labels(model, state)
        for one in happened:
            if one.kind in _ENDS:
                self._count_end(one)
            elif one.kind in self.plain:
                self.plain[one.kind].labels(one.model).inc()

    def _count_end(self, end: Happening) -> None:
        self.ended.labels(end.model, end.kind).inc()
        self.generated.labels(end.model).inc(end.generated)
        self.prompted.labels(end.model).inc(end.prompt_tokens)
        self.charged.labels(end.model).inc(end.charged)
        self.returned.labels(end.model).inc(end.returned)
        if end.started_us is not None and end.ended_us is not None:
            waited_us = max(0, end.started_us - end.submitted_us)
            self.waits.labels(end.model).observe(waited_us / 1e6)
            self.runs.labels(end.model).observe(max(0, end.ended_us - end.started_us) / 1e6)


class Measured:
    """Counts the calls of an app."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begin_s = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.open_requests.inc()
        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.open_requests.dec()
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", NOWHERE)
            self._metrics.answered(route, method, status, time.perf_counter() - begin_s)
