"""What a caller over HTTP is told is for callers; what is for the operator is logged."""

from __future__ import annotations

import asyncio
from contextlib import closing
from types import SimpleNamespace

import httpx
import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import text

from herder.db.database import Database
from herder.errors import (
    AccountExists,
    HerdUnavailable,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidRequest,
    OrderNotFound,
    OrderNotWaiting,
    QuoteExpired,
    RateLimited,
    SetupError,
    Unauthorized,
)
from herder.web import errors
from herder.web.faults import AnswerWhenBroken


def get(raised) -> SimpleNamespace:
    """One call to an app of ours whose only route does this; with what was logged."""
    app = FastAPI()
    errors.register(app)
    app.add_middleware(AnswerWhenBroken)

    @app.get("/")
    def route() -> None:
        raised()

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://herd") as client:
            return await client.get("/")

    with structlog.testing.capture_logs() as logs:
        answer = asyncio.run(call())
    return SimpleNamespace(
        status=answer.status_code, headers=answer.headers, **answer.json()["error"], logs=logs
    )


def reading(database: Database):
    def read() -> None:
        with database.read() as connection:
            connection.execute(text("SELECT id FROM orders"))

    return read


def test_a_database_without_tables_is_for_the_operator(new_database, tmp_path):
    url = new_database(bare=True) or f"sqlite:///{tmp_path / 'herd.db'}"
    with closing(Database(url)) as database:
        told = get(reading(database))
    assert (told.status, told.code, told.type) == (503, "setup_error", "server_error")
    assert told.message == "The herd is not set up; its operator has to look at it."
    assert told.headers["Retry-After"] == "1"
    (logged,) = told.logs
    assert logged["event"] == "call_failed"
    assert "`herd init`" in logged["reason"]


def test_a_server_out_of_reach_is_named_to_the_operator_alone():
    with closing(Database("postgresql://herd:secret@no.such.invalid/herd")) as database:
        told = get(reading(database))
    assert (told.status, told.code) == (503, "herd_unavailable")
    assert told.message == "The herd's database is out of reach; try again."
    (logged,) = told.logs
    assert "no.such.invalid" in logged["reason"]
    assert "secret" not in logged["reason"]


@pytest.mark.parametrize("kind", [SetupError, HerdUnavailable])
def test_the_order_of_a_call_is_told_whatever_else_is_not(kind):
    order = "e88566ee-4ea0-4e20-96e6-fe73ec89bddb"

    def fail() -> None:
        raise kind("Look at /home/herd.", order=order, name="HERD_HOME")

    told = get(fail)
    assert told.headers["X-Order"] == told.data["order"] == order
    assert ("name" in told.data) == (kind is HerdUnavailable)
    assert ("/home/herd" in told.message) == (kind is HerdUnavailable)


@pytest.mark.parametrize(
    "error",
    [
        IdempotencyKeyReused("k", "prompt"),
        OrderNotWaiting("o", "running"),
        QuoteExpired("12:00"),
        AccountExists("ada"),
        InsufficientBalance("ada", 1, 2),
        OrderNotFound("o"),
        Unauthorized("Who are you?"),
        InvalidRequest("No."),
    ],
    ids=lambda error: error.code,
)
def test_what_no_repetition_can_change_says_so(error):
    def refuse() -> None:
        raise error

    assert get(refuse).headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "error", [HerdUnavailable("Away."), RateLimited("Later.", 3)], ids=lambda error: error.code
)
def test_what_may_succeed_later_leaves_it_to_the_client(error):
    def refuse() -> None:
        raise error

    assert "x-should-retry" not in get(refuse).headers


def test_a_fault_of_ours_is_not_bought_again():
    def broken() -> None:
        raise ZeroDivisionError

    told = get(broken)
    assert (told.status, told.code, told.headers["x-should-retry"]) == (500, "broken", "false")


def test_another_call_under_a_used_key_is_no_conflict():
    """OpenAI's packages repeat a 409, and the IETF's draft says 422."""

    def refuse() -> None:
        raise IdempotencyKeyReused("k", "prompt")

    told = get(refuse)
    assert (told.status, told.code, told.type) == (
        422,
        "idempotency_key_reused",
        "invalid_request_error",
    )
