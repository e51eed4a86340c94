"""The gateway's app, and how it is served."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from uuid import uuid4

import structlog
from anyio.to_thread import run_sync
from fastapi import FastAPI
from redis import RedisError

from herder.clock import clock_us
from herder.errors import HerdUnavailable
from herder.gateway.auth import GatewayContext
from herder.gateway.cors import allow
from herder.gateway.limits.guard import CallLimits, RequestGuard
from herder.gateway.limits.rates import RedisAdder, make_sharing
from herder.gateway.openapi import DESCRIPTION, describe
from herder.gateway.prices import Priced, Prices
from herder.gateway.repetitions import RedisLostCalls, Repetitions
from herder.gateway.routes import about, herd, messages, openai, orders, usage, webhooks
from herder.gateway.routes import operators as operate
from herder.gateway.settings import GatewaySettings
from herder.gateway.short_reads import look
from herder.gateway.streams.delivering import DeliveryNotes
from herder.gateway.streams.following import Follower
from herder.gateway.streams.readers import Readers, RedisPresence, connect
from herder.gateway.telemetry.metrics import GatewayMetrics, Measured
from herder.gateway.telemetry.monitor import Monitor
from herder.local.local_herd import LocalHerd
from herder.local.readiness import check
from herder.version import __version__
from herder.web import errors
from herder.web.errors import ApiResponse
from herder.web.faults import AnswerWhenBroken
from herder.web.gzip_answers import GzipAnswers
from herder.web.lenient import Lenient
from herder.web.request_ids import RequestIds
from herder.web.serving import BoundedBody, BoundedHead, join_address, listen, run
from herder.web.single_flight import Once
from herder.web.stopping import LAST_S, AnswerWhenStopped, Stopping
from workers.transport.loops import TaskLoop
from workers.transport.reading import DeliveryWriter, TextReader

_log = structlog.get_logger("herder.gateway")

SPARE_READS = 8
TRIM_S = 10.0
"""The pause between closings of connections to Redis that nobody needs."""


def make_app(local: LocalHerd, settings: GatewaySettings) -> FastAPI:
    """Return the app of one gateway.

    Args:
        local: the herd that it sells.
        settings: of the gateway.
    """
    limits = CallLimits(settings)
    monitor = Monitor(local.database, local.accounts.totals, clock_us=clock_us)
    metrics = GatewayMetrics(monitor)
    prices = Prices(partial(look, local.database, local.quotes.going))

    stopping = Stopping(settings.gateway_grace_s)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.openapi()  # kept; made for the first who asks, it would hold up all others
        stopping.serve()
        reader = TextReader(settings.redis_url, settings.max_streams + SPARE_READS)
        writer = DeliveryWriter(settings.redis_url)
        follower = Follower(
            local,
            reader,
            DeliveryNotes(writer.write),
            settings.max_streams,
            settings.max_streams_per_key,
            metrics.began,
        )
        metrics.streams.set_function(lambda: float(follower.open))
        ready = Once(partial(check, local))
        cancellations = local.cancellations
        cancellations.on_dropped = metrics.dropped_cancellations.inc
        metrics.cancellations.set_function(lambda: float(cancellations.waiting))
        client = connect(settings.redis_url)
        readers = Readers(
            RedisPresence(client, str(uuid4())),
            cancellations.remember,
            grace_s=settings.disconnect_grace_s,
        )
        repetitions = Repetitions(RedisLostCalls(client))
        app.state.context = GatewayContext(
            local,
            follower,
            settings,
            limits,
            ready,
            metrics,
            stopping,
            readers,
            repetitions,
            prices,
        )
        adder = RedisAdder(settings.redis_url)
        beside: list[TaskLoop | Readers | Repetitions] = [
            make_sharing(limits.rates, adder),
            # Gives back, now and then, the connections that many streams at once needed.
            TaskLoop("trim", reader.trim, every_s=TRIM_S, outages=(RedisError,), log=_log),
            readers,
            repetitions,
        ]
        for one in beside:
            one.start()
        yield
        for one in beside:
            await one.stop()
        await prices.close()
        await run_sync(cancellations.close)
        await adder.close()
        await client.aclose()
        await reader.close()
        await writer.close()

    app = FastAPI(
        title="Llama Herder",
        version=__version__,
        description=DESCRIPTION,
        lifespan=life,
        # Its pages would load scripts from elsewhere; /openapi.json says the same.
        docs_url=None,
        redoc_url=None,
        default_response_class=ApiResponse,
    )
    errors.register(app)
    for router in (
        orders.router,
        messages.router,
        openai.router,
        herd.router,
        about.router,
        operate.router,
        usage.router,
        webhooks.router,
    ):
        app.include_router(router)
    describe(app)
    app.state.stopping = stopping
    # The last is the first that a call comes to.
    app.add_middleware(BoundedBody, most=settings.max_body_bytes)
    app.add_middleware(RequestGuard, limits=limits)
    app.add_middleware(BoundedHead, most=settings.max_header_bytes)
    app.add_middleware(AnswerWhenStopped, stopping=stopping)
    app.add_middleware(Priced, prices=prices)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(GzipAnswers)
    app.add_middleware(AnswerWhenBroken)
    app.add_middleware(RequestIds)
    app.add_middleware(Lenient)
    allow(app, settings.cors_origins)
    return app


def serve(
    local: LocalHerd, settings: GatewaySettings, said: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until told to stop (SIGTERM, SIGINT).

    Args:
        local: the herd.
        settings: of the gateway.
        said: gets the address once it answers there.

    Raises:
        SetupError: the address cannot be had, or the database cannot be used as it is.
    """
    with suppress(HerdUnavailable):  # it may come later, and is asked then
        local.database.require_current()
    listening = listen(settings.gateway_host, settings.gateway_port, "gateway", "HERD_GATEWAY_PORT")
    host, port = listening.getsockname()[:2]

    def ready() -> None:
        said(f"http://{join_address(host, port)}")
        _log.info("gateway_ready", host=host, port=port)

    app = make_app(local, settings)
    stopping: Stopping = app.state.stopping
    run(
        app,
        listening,
        ready=ready,
        stopping=stopping.begin,
        timeout_graceful_shutdown=settings.gateway_grace_s + LAST_S,
        bounds=settings,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
    )
    _log.info("gateway_ended")
