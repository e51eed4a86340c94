"""Rates and policy, as the operator of a herd sets them."""

from __future__ import annotations

import time

from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.parsing import parse_model
from herder.domain.pricing import Rates
from herder.errors import HerdUnavailable, InvalidRequest, shown
from herder.market.ranking import PAUSE_S, Ranker
from herder.store import models as model_sql
from herder.store.models import Model

MAX_RATE = 2**40
"""The highest rate in winston, as at `herd init`."""
MAX_POLICY = 10**9


def set_rates(
    database: Database,
    name: object,
    *,
    prompt_fee: object = None,
    fee_per_token: object = None,
    default: bool = False,
) -> tuple[Model, bool]:
    """Configure a model, or change its rates for the orders to come.

    Args:
        database: where rates stand.
        name: the model's.
        prompt_fee: winston for a prompt; None leaves it, or is 1 for a new model.
        fee_per_token: winston for each word and token; None leaves it, or is 1 for a new model.
        default: whether it becomes the herd's model, as `set_herd_model` says.

    Returns:
        The model, and whether it is new.

    Raises:
        InvalidName: it is not a valid model name.
        InvalidRequest: a rate is invalid, or nothing is to be changed.
    """
    model_name = parse_model(name)
    if prompt_fee is not None:
        prompt_fee = _rate("prompt_fee", prompt_fee, 1)
    if fee_per_token is not None:
        fee_per_token = _rate("fee_per_token", fee_per_token, 0)

    is_new: bool | None = None

    def step(connection: Connection) -> tuple[Model | None, bool]:
        nonlocal is_new
        if default:
            model_sql.lock_policy(connection)
        known = model_sql.get_model(connection, model_name)
        if is_new is None:  # the first try, which may have been committed unheard
            is_new = known is None
        nothing = prompt_fee is None and fee_per_token is None and not default
        if not is_new and nothing:
            raise InvalidRequest(
                f"Model {model_name} already exists; give prompt_fee, fee_per_token or both to "
                "change it."
            )
        before = known.rates if known is not None else Rates()
        rates = Rates(
            before.prompt_fee if prompt_fee is None else prompt_fee,
            before.fee_per_token if fee_per_token is None else fee_per_token,
        )
        model_sql.put_model(connection, model_name, rates)
        if default:
            model_sql.set_default_model(connection, model_name)
        return model_sql.get_model(connection, model_name), is_new

    model, new = database.settle(step)
    assert model is not None, "it was written in this transaction"
    return model, new


def set_herd_model(database: Database, name: str) -> str:
    """Make a model the herd's: workers that announce another are refused from now on.

    Those that are here stay until they end. A new model gets the rates of the one before.

    Args:
        database: where the herd's model stands, for all herders alike.
        name: the model's, parsed.

    Returns:
        The herd's model before; the same name where nothing changed.
    """

    def step(connection: Connection) -> str:
        model_sql.lock_policy(connection)
        _, before, _ = model_sql.read_policy(connection)
        if before == name:
            return before
        if model_sql.get_model(connection, name) is None:
            like = model_sql.get_model(connection, before)
            assert like is not None, "the herd's model is configured"
            model_sql.put_model(connection, name, like.rates)
        model_sql.set_default_model(connection, name)
        return before

    return database.transact(step)


def read_policy(database: Database) -> dict[str, int | str | bool]:
    """Return the values that price, rank and limit, by name."""
    with database.read() as connection:
        return model_sql.policy_values(connection)


def set_policy(database: Database, **values: object) -> int:
    """Change how waiting weighs and what accounts may do; a None leaves a value as it is.

    Args:
        database: where they stand.
        values: `aging_s`, `max_open_orders`, `tokens_per_minute`.

    Returns:
        How many open orders this call ranked anew (`herder/market/ranking.py`), after the change
        itself was committed. Should it be ended meanwhile, the herders rank the rest.

    Raises:
        HerdUnavailable: the database is out of reach; where the policy was set before, it says so.
        InvalidRequest: a value is invalid, or nothing is to be changed.
    """
    changed = {name: value for name, value in values.items() if value is not None}
    if not changed:
        raise InvalidRequest(f"Give at least one of {', '.join(values)}.")
    for name, value in changed.items():
        if type(value) is not int or not 0 <= value <= MAX_POLICY:
            raise InvalidRequest(
                f"{name} must be a whole number from 0 to {MAX_POLICY}, not {shown(value)}."
            )

    def step(connection: Connection) -> None:
        model_sql.lock_policy(connection)
        model_sql.set_policy(connection, changed)
        if "aging_s" in changed:
            model_sql.ask_for_ranking(connection)

    database.settle(step)
    ranker = Ranker(database)
    try:
        while "aging_s" in changed and ranker.step():
            time.sleep(PAUSE_S)
    except HerdUnavailable as error:
        raise HerdUnavailable(
            f"The policy is set, and {ranker.ranked} open orders were ranked by it when the "
            "database was lost; the herders rank the others once it is back."
        ) from error
    return ranker.ranked


def _rate(name: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value <= MAX_RATE:
        raise InvalidRequest(
            f"{name} must be a whole number of winston from {least} to {MAX_RATE}, "
            f"not {str(value)[:40]}."
        )
    return value
