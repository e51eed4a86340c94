"""The home folder: database, keys, settings. `herd init` makes it, and may be called again.

Whoever can read the herder's private key can give orders to the workers, so keys and settings
are readable by their owner alone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from uuid import uuid4

from herder.accounts.accounts import OUTSIDE, Accounts, open_ledger
from herder.clock import clock_us
from herder.db import migrations
from herder.db.database import Database
from herder.errors import AccountExists, SetupError
from herder.herd.herder_key import load_herder_key
from herder.settings import InitialPolicy, Settings
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from workers.transport.private_files import close_to_others, open_mode
from workers.transport.settings import SETTINGS_FILE
from workers.wire import PrivateKey, PublicKey, WireError

REVENUE_STRIPES = {"sqlite": 1, "postgresql": 16}
"""Accounts that revenue is spread over, by kind of database: where many write at once, one row that
every settlement credits is a row that all of them wait for."""


def init(settings: Settings, initial: InitialPolicy, *, deposit: int = 0) -> list[str]:
    """Make the home folder, or bring it up to date; what is there stays.

    Args:
        settings: whose home, database and account are made.
        initial: what prices and ranks, for a database that has none yet.
        deposit: winston for the account, if it is made now.

    Returns:
        What was made, a line each.

    Raises:
        SetupError: the folder or the database cannot be written.
    """
    made: list[str] = []
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SetupError(
            f"The home folder {settings.home} cannot be created ({error.strerror}); set HERD_HOME "
            "to a folder that you can write to."
        ) from None
    key = _herder_key(settings, made)
    if write_once(settings.home / SETTINGS_FILE, _settings_text(settings)):
        made.append(f"settings {settings.home / SETTINGS_FILE}")
    database = Database(settings.database, any_version=True)
    try:
        _fill(database, settings, initial, key, made)
        add_worker_key(database, settings, "worker", made)
        _open_account(database, settings.account, deposit, made)
    finally:
        database.close()
    return made


def open_home(home: Path) -> str | None:
    """Return a warning of a home folder that other users may enter; None: they cannot."""
    mode = open_mode(home)
    if mode is None:
        return None
    return (
        f"Other users of this machine may enter the home folder {home} (mode {mode}); `chmod 700 "
        f"{home}` keeps them out. Its database and keys are readable by their owner alone."
    )


def _fill(
    database: Database,
    settings: Settings,
    initial: InitialPolicy,
    key: PrivateKey,
    made: list[str],
) -> None:
    now_us = clock_us()
    migrations.load()
    with database.write() as connection:
        stripes = REVENUE_STRIPES[connection.dialect.name]
        migrations.upgrade(connection)
        herd_sql.add_key(connection, herd_sql.HERDER, "herder", key.public, now_us)
        if model_sql.has_policy(connection):
            return
        model_sql.put_model(connection, initial.model, initial.rates)
        model_sql.add_policy(
            connection,
            model_sql.PolicyRow(
                fee_bump=str(initial.fee_bump),
                auto_multiplier_max=str(initial.auto_multiplier_max),
                auto_half_life_s=initial.auto_half_life_s,
                bytes_per_word=initial.bytes_per_word,
                charge_unused=initial.charge_unused,
                aging_s=initial.aging_s,
                max_open_orders=initial.max_open_orders,
                tokens_per_minute=initial.tokens_per_minute,
                default_model=initial.model,
                revenue_stripes=stripes,
            ),
        )
        herd_sql.start_clock(connection)
        books = open_ledger()
        books.create_account(connection, OUTSIDE, "outside", allow_overdraft=True)
        for stripe in range(stripes):
            books.create_account(connection, f"revenue:{stripe}", "revenue")
    made.append("database" if settings.database_url else f"database {settings.home / 'herd.db'}")


def _open_account(database: Database, name: str, deposit: int, made: list[str]) -> None:
    accounts = Accounts(database, open_ledger(), clock_us=clock_us)
    try:
        accounts.create(name)
    except AccountExists:
        return
    made.append(f"account {name}")
    if deposit:
        accounts.deposit(name, deposit, str(uuid4()), "first deposit")
        made.append(f"deposit of {deposit} winston")


def _settings_text(settings: Settings) -> str:
    lines = [
        "# Settings of this herd: HERD_NAME=value, one per line. The environment overrides them.",
        "# Prices and ranks are not set here: they are in the database (`herd model set`).",
    ]
    if settings.redis_url != Settings.model_fields["redis_url"].default:
        lines.append(f"HERD_REDIS_URL={settings.redis_url}")
    if settings.database_url:
        lines.append(f"HERD_DATABASE_URL={settings.database_url}")
    return "\n".join(lines) + "\n"


def write_once(path: Path, text: str) -> bool:
    """Write a file that only its owner may read, unless it is there; says whether it was written.

    Raises:
        SetupError: it cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise SetupError(f"The file {path} cannot be written ({error.strerror}).") from None
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return True


def set_lines(path: Path, values: dict[str, str]) -> None:
    """Set `NAME=value` lines of the settings file; the other lines stay."""
    kept = [
        line
        for line in (path.read_text().splitlines() if path.exists() else [])
        if line.split("=", 1)[0] not in values
    ]
    text = "\n".join([*kept, *(f"{name}={value}" for name, value in values.items())]) + "\n"
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    write_once(partial, text)
    partial.replace(path)


# Keys


def _herder_key(settings: Settings, made: list[str]) -> PrivateKey:
    if not settings.key_path.exists():
        text = json.dumps(PrivateKey.generate().to_jwk())
        if write_once(settings.key_path, text):
            made.append(f"herder's key {settings.key_path}")
    return load_herder_key(settings)


def add_worker_key(
    database: Database, settings: Settings, name: str, made: list[str] | None = None
) -> Path:
    """Make the file that a worker joins with, and believe its key from now on.

    It holds the worker's private key and the public keys of the herders. A file whose key was
    revoked is replaced.

    Args:
        database: where the herders look keys up.
        settings: whose home it is made in.
        name: what people call it; the file's name too.
        made: gets a line if the file was made.

    Raises:
        SetupError: the file cannot be written or read.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise SetupError(
            f"A worker's name may contain letters, digits, dots and dashes, not {name!r}."
        )
    folder = settings.home / "workers"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.json"
    close_to_others(path)
    if not path.exists():
        with database.read() as connection:
            herders = herd_sql.live_keys(connection, herd_sql.HERDER)
        joined = {
            "worker": PrivateKey.generate().to_jwk(),
            "herders": [public.to_jwk() for public in herders.values()],
        }
        if write_once(path, json.dumps(joined, indent=1) + "\n") and made is not None:
            made.append(f"worker's key {path}")
    public = _public_key(path)
    with database.write() as connection:
        is_revoked = public.kid in herd_sql.revoked_keys(connection, herd_sql.WORKER)
        if not is_revoked:
            herd_sql.add_key(connection, herd_sql.WORKER, name, public, clock_us())
    if is_revoked:
        # Nobody is to join with it again: the name gets another.
        path.unlink(missing_ok=True)
        return add_worker_key(database, settings, name, made)
    return path


def _public_key(path: Path) -> PublicKey:
    """Return the public half of the key in a worker's file.

    Raises:
        SetupError: the file cannot be read, or is not one.
    """
    try:
        jwk = json.loads(path.read_text())["worker"]
        return PublicKey.from_jwk({name: value for name, value in jwk.items() if name != "d"})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, WireError):
        raise SetupError(f"The file {path} cannot be read as a worker's key.") from None


def add_worker(database: Database, settings: Settings, name: str) -> dict[str, str]:
    """Let a further worker join; a name that is known keeps its key.

    Returns:
        The environment that it needs, beside `HERD_MODEL_PATH`. The address of Redis may hold a
        password, and the file of `HERD_WORKER_KEY` is a secret.

    Raises:
        SetupError: the name is not valid, or the file cannot be written.
    """
    path = add_worker_key(database, settings, name)
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
