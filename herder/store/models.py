"""SQL about models and the values that price for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from herder.db.tables import model, policy
from herder.domain.pricing import Policy, Rates
from herder.store.upsert import insert_or


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it is priced and bounded."""

    name: str
    rates: Rates
    context: int | None
    last_multiplier: Fraction
    last_dispatch_us: int | None


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """The one row of `policy`: what prices, ranks and limits; exact numbers as text.

    Attributes:
        fee_bump, auto_multiplier_max: exact fractions.
        revenue_stripes: accounts that revenue is spread over.
    """

    fee_bump: str
    auto_multiplier_max: str
    auto_half_life_s: int
    bytes_per_word: int
    charge_unused: bool
    aging_s: int
    max_open_orders: int
    tokens_per_minute: int
    default_model: str
    revenue_stripes: int


_POLICY = select(policy)


def has_policy(connection: Connection) -> bool:
    """Return whether the database holds a herd already."""
    return connection.execute(_POLICY).one_or_none() is not None


def add_policy(connection: Connection, row: PolicyRow) -> None:
    """Write down the policy of a new herd."""
    values = {column.name: getattr(row, column.name) for column in policy.c if column.name != "id"}
    connection.execute(insert(policy).values(id=1, **values))


def read_policy(connection: Connection) -> tuple[Policy, str, int]:
    """Return the pricing values, the default model, and the stripes of revenue."""
    row = connection.execute(_POLICY).one()
    values = Policy(
        Fraction(row.fee_bump),
        Fraction(row.auto_multiplier_max),
        row.auto_half_life_s,
        row.bytes_per_word,
        row.charge_unused,
        row.aging_s,
    )
    return values, row.default_model, row.revenue_stripes


_MODEL = select(model).where(model.c.name == bindparam("name"))
_MODELS = select(model).order_by(model.c.name)


def _to_model(row: Row[Any]) -> Model:
    return Model(
        row.name,
        Rates(row.prompt_fee, row.fee_per_token),
        row.context,
        # One that needed nothing would be an endless bid, and every look at its model an error.
        Fraction(row.last_fee, max(1, row.last_needed)),
        row.last_dispatch_us,
    )


_IS_RANKED = select(model.c.rank_epoch == model.c.ranked_epoch).where(
    model.c.name == bindparam("name")
)
# The row that was waited for is looked at as it is then: with what its last owner wrote.
_LOCK = _IS_RANKED.with_for_update(key_share=True)
_TO_RANK = (
    select(model.c.name, model.c.rank_epoch)
    .where(model.c.rank_epoch != model.c.ranked_epoch)
    .order_by(model.c.name)
)


_POLICY_LOCK = 0x6865726420706F6C  # "herd pol", a number that nobody else may take
# A lock on the row itself would be written down by each submission.
_SHARE_POLICY = select(func.pg_advisory_xact_lock_shared(_POLICY_LOCK))
_LOCK_POLICY = select(func.pg_advisory_xact_lock(_POLICY_LOCK))


def lock_dispatch(connection: Connection, name: str) -> bool:
    """Wait for the right to dispatch a model's orders, and keep it to the transaction's end.

    On SQLite the write lock is that right already.

    Returns:
        Whether its book may be dispatched from: it is not being ranked anew.
    """
    sqlite = connection.dialect.name == "sqlite"
    found = connection.execute(_IS_RANKED if sqlite else _LOCK, {"name": name})
    return bool(found.scalar_one_or_none())


def ask_for_ranking(connection: Connection) -> None:
    """Have every book ranked anew; until it is, nothing of it is dispatched."""
    connection.execute(update(model).values(rank_epoch=model.c.rank_epoch + 1))


def to_rank(connection: Connection) -> list[tuple[str, int]]:
    """(model, number of the change) of the books that are to be ranked anew."""
    return [(row.name, int(row.rank_epoch)) for row in connection.execute(_TO_RANK)]


def mark_ranked(connection: Connection, name: str, epoch: int) -> None:
    """Mark a book as ranked for a change; a change that came meanwhile is still to be done."""
    connection.execute(
        update(model)
        .where(model.c.name == name, model.c.rank_epoch == epoch)
        .values(ranked_epoch=epoch)
    )


def share_policy(connection: Connection) -> None:
    """Keep the policy as it is to the transaction's end: what is ranked by it is then in the book.

    On SQLite the write lock does that already.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(_SHARE_POLICY)


def lock_policy(connection: Connection) -> None:
    """Wait until nobody ranks by the policy, and let nobody do so before the transaction's end."""
    if connection.dialect.name != "sqlite":
        connection.execute(_LOCK_POLICY)


def policy_values(connection: Connection) -> dict[str, int | str | bool]:
    """Return the values that price, rank and limit, by name, for people."""
    row = connection.execute(_POLICY).one()
    return {name: value for name, value in row._mapping.items() if name != "id"}


def set_policy(connection: Connection, values: Mapping[str, object]) -> None:
    """Change values of the policy; where waiting weighs anew, the caller asks for ranking."""
    connection.execute(update(policy).values(dict(values)))


def get_model(connection: Connection, name: str) -> Model | None:
    """Return a model by name."""
    row = connection.execute(_MODEL, {"name": name}).one_or_none()
    return None if row is None else _to_model(row)


def list_models(connection: Connection) -> list[Model]:
    """Return every model that was configured."""
    return [_to_model(row) for row in connection.execute(_MODELS)]


def put_model(connection: Connection, name: str, rates: Rates) -> None:
    """Configure a model, or change its rates for the orders to come."""
    values = {"prompt_fee": rates.prompt_fee, "fee_per_token": rates.fee_per_token}
    row = insert_or(connection, model).values(name=name, **values)
    connection.execute(row.on_conflict_do_update(index_elements=[model.c.name], set_=values))


def set_default_model(connection: Connection, name: str) -> None:
    """Make a model that is configured the herd's: workers serve it, and orders without one get it.

    A policy is changed by whoever holds `lock_policy`.
    """
    connection.execute(update(policy).values(default_model=name))


def set_context(connection: Connection, name: str, context: int) -> None:
    """Note the context that the herd's workers announced for a model, in tokens."""
    connection.execute(update(model).where(model.c.name == name).values(context=context))


_LAST = (
    update(model)
    .where(model.c.name == bindparam("which"))
    .values(
        last_fee=bindparam("fee"),
        last_needed=bindparam("needed"),
        last_dispatch_us=bindparam("at_us"),
    )
)


def set_last_multiplier(
    connection: Connection, name: str, fee: int, needed: int, at_us: int
) -> None:
    """Note the multiplier of the order that was dispatched last, as an exact fraction."""
    values = {"which": name, "fee": fee, "needed": needed, "at_us": at_us}
    connection.execute(_LAST, values)
