"""The rule about webhooks: each end of an order is written down where it ends, once."""

from __future__ import annotations

from sqlalchemy import Connection

from herder.store import webhooks as webhook_sql
from herder.webhooks.events import ORDER_TYPES, message_id
from tests.simulation.clockwork import Broken
from tests.simulation.shadow import Row, Shadow

LISTENERS = {"ada": "we_ada", "poor": "we_poor"}
"""Endpoints, by account; the other accounts have none."""


def listen(connection: Connection) -> None:
    """Have these accounts told."""
    for account, endpoint in LISTENERS.items():
        webhook_sql.add_endpoint(
            connection,
            webhook_sql.Endpoint(
                id=endpoint,
                account=account,
                url=f"https://{account}.example/",
                types=ORDER_TYPES,
                include_text=False,
                enabled=True,
                why=None,
                failing_since_us=None,
                created_us=0,
                secret="",
                old_secret=None,
                old_until_us=None,
                sealed_by="",
            ),
        )


def judge_end(shadow: Shadow, row: Row) -> None:
    """Its account's endpoint is to be told, in the commit in which it ended."""
    if row.account not in LISTENERS:
        return
    message = message_id(f"order.{row.state}", row.id, LISTENERS[row.account])
    found = shadow.rows("SELECT subject FROM webhook_delivery WHERE id = ?", message)
    if found != [(row.id,)]:
        raise Broken("webhooks", f"order {row.seq} is {row.state} and nobody will be told")


def judge_all(shadow: Shadow) -> None:
    """Nothing else is to be told."""
    ends = sum(row.account in LISTENERS for row in shadow.by_seq.values())
    told = shadow.one("SELECT count(*) FROM webhook_delivery")
    if told != ends:
        raise Broken("webhooks", f"{ends} orders ended for who listens, and {told} are told")
