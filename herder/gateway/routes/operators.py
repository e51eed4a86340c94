"""The routes for operators: accounts, deposits, grants, keys, refunds, workers.

Every route wants a key with the scope `operate`, which buys nothing with anybody's money but its
own account's. A call that moves money may be repeated under an `Idempotency-Key`: it is done once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Response

from herder.domain.ids import call_id
from herder.domain.paging import MAX_HTTP_PAGE, page_of
from herder.domain.parsing import parse_note
from herder.domain.periods import parse_day
from herder.errors import IdempotencyKeyReused
from herder.gateway.auth import Context, GatewayContext, Operator
from herder.gateway.openapi import LOCATION
from herder.gateway.routes.herd import statement_of
from herder.gateway.schemas.operators import (
    AccountCard,
    AccountsAnswer,
    ApiKeyCard,
    ApiKeysAnswer,
    BalanceCard,
    DrainAnswer,
    GrantCard,
    GrantsAnswer,
    LimitsBody,
    MoveBody,
    MovedAnswer,
    NewAccountBody,
    NewApiKeyAnswer,
    NewApiKeyBody,
    NewGrantBody,
    RefundAnswer,
    RefundBody,
    WorkerCard,
    WorkersAnswer,
)
from herder.gateway.schemas.orders import StatementAnswer
from herder.gateway.schemas.paging import IdCursor, Limit, SeqCursor
from herder.herd.roster import list_workers
from herder.web.errors import ApiResponse

router = APIRouter(prefix="/v1", tags=["operators"], default_response_class=ApiResponse)

IdempotencyKey = Annotated[
    str | None, Header(description="A call that is repeated with the same key is done only once.")
]


@contextmanager
def _under(idempotency_key: str | None) -> Iterator[None]:
    """Name a key that stands for another call as the caller wrote it."""
    try:
        yield
    except IdempotencyKeyReused as error:
        raise IdempotencyKeyReused(
            idempotency_key or error.data["key"], error.data["field"]
        ) from None


# Accounts


@router.post("/accounts", status_code=201, responses={201: {"headers": LOCATION}})
async def create_account(
    body: NewAccountBody, context: Context, _: Operator, response: Response
) -> AccountCard:
    """Open an account with nothing in it."""
    await run_sync(context.herd.accounts.create, body.name)
    response.headers["Location"] = f"/v1/accounts/{body.name}"
    return await run_sync(_account, context, body.name)


@router.get("/accounts")
async def list_accounts(
    context: Context, _: Operator, after: IdCursor = None, limit: Limit = MAX_HTTP_PAGE
) -> AccountsAnswer:
    """Return the accounts with what they have, by name, a page at a time."""
    page = await run_sync(context.herd.accounts.page, after or "", limit)
    return AccountsAnswer(accounts=[BalanceCard.of(one) for one in page.items], next=page.next)


@router.get("/accounts/{name}")
async def get_account(name: str, context: Context, _: Operator) -> AccountCard:
    """Return an account's balance, and its limits."""
    return await run_sync(_account, context, name)


@router.put("/accounts/{name}/limits")
async def set_limits(name: str, body: LimitsBody, context: Context, _: Operator) -> AccountCard:
    """Give an account limits of its own; what is null is the herd's again."""
    await run_sync(partial(context.herd.accounts.set_limits, name, **body.model_dump()))
    return await run_sync(_account, context, name)


@router.get("/accounts/{name}/statement", response_model=StatementAnswer)
async def get_statement(
    name: str,
    context: Context,
    _: Operator,
    after: SeqCursor = 0,
    limit: Limit = MAX_HTTP_PAGE,
) -> dict[str, Any]:
    """Return an account's statement, oldest entries first, a page at a time."""
    return await statement_of(context, name, after, limit)


@router.post("/accounts/{name}/deposits", status_code=201)
async def deposit(
    name: str,
    body: MoveBody,
    context: Context,
    key: Operator,
    idempotency_key: IdempotencyKey = None,
) -> MovedAnswer:
    """Bring money in from the outside."""
    transfer_id = call_id(key.account, "deposit", idempotency_key)
    note = parse_note("note", body.note)
    with _under(idempotency_key):
        after = await run_sync(context.herd.accounts.deposit, name, body.amount, transfer_id, note)
    return MovedAnswer(id=transfer_id, amount=body.amount, account=BalanceCard.of(after))


@router.post("/accounts/{name}/withdrawals", status_code=201)
async def withdraw(
    name: str,
    body: MoveBody,
    context: Context,
    key: Operator,
    idempotency_key: IdempotencyKey = None,
) -> MovedAnswer:
    """Take money out to the outside; what is held stays."""
    transfer_id = call_id(key.account, "withdrawal", idempotency_key)
    note = parse_note("note", body.note)
    with _under(idempotency_key):
        after = await run_sync(context.herd.accounts.withdraw, name, body.amount, transfer_id, note)
    return MovedAnswer(id=transfer_id, amount=body.amount, account=BalanceCard.of(after))


@router.post("/orders/{order_id}/refunds", status_code=201)
async def refund(
    order_id: str,
    body: RefundBody,
    context: Context,
    key: Operator,
    idempotency_key: IdempotencyKey = None,
) -> RefundAnswer:
    """Give back what an order that ended was charged, in part or whole."""
    refund_id = call_id(key.account, "refund", idempotency_key)
    reason = parse_note("reason", body.reason)
    with _under(idempotency_key):
        given = await run_sync(
            partial(context.herd.intake.refund, order_id, body.amount, reason, refund_id=refund_id)
        )
    receipt = await run_sync(context.herd.receipt, order_id)
    return RefundAnswer(id=refund_id, amount=given, receipt=receipt)


def _account(context: GatewayContext, name: str) -> AccountCard:
    accounts = context.herd.accounts
    return AccountCard.with_limits(accounts.balance(name), accounts.standing(name))


# Grants


@router.post("/accounts/{name}/grants", status_code=201)
async def create_grant(
    name: str,
    body: NewGrantBody,
    context: Context,
    key: Operator,
    idempotency_key: IdempotencyKey = None,
) -> GrantCard:
    """Give an account an amount anew in each period; the one that runs is posted at once."""
    starts = None if body.starts is None else parse_day("starts", body.starts)
    with _under(idempotency_key):
        made = await run_sync(
            partial(
                context.herd.grants.create,
                name,
                body.amount,
                body.every,
                starts=starts,
                note=body.note,
                grant_id=call_id(key.account, "grant", idempotency_key),
            )
        )
    return GrantCard.of(made)


@router.get("/accounts/{name}/grants")
async def list_grants(
    name: str, context: Context, _: Operator, after: IdCursor = None, limit: Limit = MAX_HTTP_PAGE
) -> GrantsAnswer:
    """Return an account's grants, oldest first, a page at a time."""
    await run_sync(context.herd.accounts.balance, name)
    found = await run_sync(partial(context.herd.grants.list, name, after=after, limit=limit + 1))
    page = page_of(found, limit, lambda one: one.id)
    return GrantsAnswer(grants=[GrantCard.of(one) for one in page.items], next=page.next)


@router.delete("/grants/{grant_id}")
async def end_grant(grant_id: str, context: Context, _: Operator) -> GrantCard:
    """End a grant, at once and for good; what was given stays."""
    return GrantCard.of(await run_sync(context.herd.grants.end, grant_id))


# Keys


@router.post("/accounts/{name}/keys", status_code=201)
async def create_key(
    name: str, body: NewApiKeyBody, context: Context, _: Operator, response: Response
) -> NewApiKeyAnswer:
    """Make an API key for an account, and show it: this once and never again."""
    made, text = await run_sync(partial(context.herd.api_keys.create, name, **body.model_dump()))
    response.headers["Cache-Control"] = "no-store"
    return NewApiKeyAnswer(**ApiKeyCard.of(made).model_dump(), key=text)


@router.get("/accounts/{name}/keys")
async def list_keys(
    name: str, context: Context, _: Operator, after: IdCursor = None, limit: Limit = MAX_HTTP_PAGE
) -> ApiKeysAnswer:
    """Return an account's API keys, oldest first, a page at a time."""
    await run_sync(context.herd.accounts.balance, name)
    found = await run_sync(partial(context.herd.api_keys.list, name, after=after, limit=limit + 1))
    page = page_of(found, limit, lambda one: one.id)
    return ApiKeysAnswer(keys=[ApiKeyCard.of(one) for one in page.items], next=page.next)


@router.delete("/keys/{key_id}")
async def revoke_key(key_id: str, context: Context, _: Operator) -> ApiKeyCard:
    """End an API key, at once and for good; orders that were bought with it go on."""
    return ApiKeyCard.of(await run_sync(context.herd.api_keys.revoke, key_id))


# Workers


@router.get("/workers")
async def workers(context: Context, _: Operator) -> WorkersAnswer:
    """Return the workers of the herd."""
    found = await run_sync(list_workers, context.herd.database)
    return WorkersAnswer(workers=[WorkerCard.of(one) for one in found])


@router.post("/workers/{name}/drain", status_code=202)
async def drain(name: str, context: Context, _: Operator) -> DrainAnswer:
    """Have a worker take no more orders, finish or hand back what it has, and end."""
    return DrainAnswer(worker=name, instances=await run_sync(context.herd.workers.drain, name))
