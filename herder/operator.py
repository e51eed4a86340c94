"""What the operator of a herd does beside accounts and orders: rates, and who may join."""

from __future__ import annotations

import time
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Connection

from herder.db.database import Database
from herder.domain.parsing import parse_key, parse_model
from herder.domain.pricing import Rates
from herder.errors import HerdUnavailable, InvalidRequest, shown
from herder.host import home
from herder.market.ranking import PAUSE_S, Ranker
from herder.settings import Settings
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store.herd import Worker
from herder.store.models import Model

MAX_RATE = 2**40
"""The highest rate in winston, as at `herd init`."""
MAX_NOTE_CHARS = 1000
MAX_POLICY = 10**9
_CALLS = UUID("5d1d7f39-6c4b-5a52-9d0c-0e4f3c1b2a77")
"""What the ids of operators' calls follow from; drawn once, and the same for ever."""


def set_rates(
    database: Database, name: object, *, prompt_fee: object = None, fee_per_token: object = None
) -> tuple[Model, bool]:
    """Configure a model, or change its rates for the orders to come.

    Args:
        database: where rates stand.
        name: the model's.
        prompt_fee: winston for a prompt; None leaves it, or is 1 for a new model.
        fee_per_token: winston for each word and token; None leaves it, or is 1 for a new model.

    Returns:
        The model, and whether it is new.

    Raises:
        InvalidName: it is no model's name.
        InvalidRequest: a rate is none, or nothing is to be changed.
    """
    model_name = parse_model(name)
    if prompt_fee is not None:
        prompt_fee = _rate("prompt_fee", prompt_fee, 1)
    if fee_per_token is not None:
        fee_per_token = _rate("fee_per_token", fee_per_token, 0)

    def step(connection: Connection) -> tuple[Model | None, bool]:
        known = model_sql.get_model(connection, model_name)
        if known is not None and prompt_fee is None and fee_per_token is None:
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
        return model_sql.get_model(connection, model_name), known is None

    model, new = database.transact(step)
    assert model is not None, "it was written in this transaction"
    return model, new


def read_policy(database: Database) -> dict[str, int | str | bool]:
    """The values that price, rank and limit, by name."""
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
        InvalidRequest: a value is none, or nothing is to be changed.
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

    database.transact(step)
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


def parse_note(name: str, text: str | None) -> str:
    """An operator's own words, which stand in a statement for ever.

    Args:
        name: what they are called in the sentence that refuses them.
        text: the words, or None for none.

    Raises:
        InvalidRequest: they are empty, too long, or no text.
    """
    if text is None:
        return ""
    # A lone surrogate is no character: no database takes it.
    surrogate = any("\ud800" <= char <= "\udfff" for char in text)
    if not text.strip() or len(text) > MAX_NOTE_CHARS or surrogate:
        raise InvalidRequest(f"{name} must be 1 to {MAX_NOTE_CHARS} characters.")
    return text


def call_id(operator: str, what: str, key: object) -> str:
    """The id of what a call makes: the same for the same idempotency key, so that it is made once.

    Args:
        operator: the account whose API key calls; each has keys of its own.
        what: the kind of call; each has keys of its own.
        key: the idempotency key, or None for a call that is made for the first time.

    Raises:
        InvalidKey: the key is none.
    """
    parsed = parse_key(key)
    return str(uuid4()) if parsed is None else str(uuid5(_CALLS, f"{operator}\n{what}\n{parsed}"))


# The herd


def list_workers(database: Database, *, all_of_them: bool = False) -> list[Worker]:
    """The workers that beat; or every instance that ever announced itself."""
    with database.read() as connection:
        if all_of_them:
            return herd_sql.all_workers(connection)
        return herd_sql.workers_here(connection)


def serving(database: Database, model: str, lease_s: int) -> bool:
    """Whether a worker of this model was heard within a lease.

    Their state alone does not tell: where no herder listens, nobody notices that they are gone.
    """
    since_us = home.clock_us() - lease_s * 1_000_000
    with database.read() as connection:
        return any(one.seen_us >= since_us for one in herd_sql.workers_here(connection, model))


def add_worker(database: Database, settings: Settings, name: str) -> dict[str, str]:
    """Let a further worker join; a name that is known keeps its key.

    Returns:
        The environment that it needs, beside `HERD_MODEL_PATH`. The address of Redis may hold a
        password, and the file of `HERD_WORKER_KEY` is a secret.

    Raises:
        SetupError: the name is none, or the file cannot be written.
    """
    path = home.add_worker_key(database, settings, name)
    with database.read() as connection:
        _, default_model, _ = model_sql.read_policy(connection)
    environment = {"HERD_REDIS_URL": settings.redis_url}
    if settings.broker_url:
        environment["HERD_BROKER_URL"] = settings.broker_url
    return environment | {
        "HERD_WORKER_KEY": str(path),
        "HERD_WORKER_NAME": name,
        "HERD_MODEL": default_model,
    }
