"""Understands what PostgreSQL and its driver say: as an error of ours, with what to do about it."""

from __future__ import annotations

import re

from sqlalchemy import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError, ProgrammingError

from herder.errors import HerdError, HerdUnavailable, SetupError
from ledger.postgres import POSTGRES

UNDONE = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATEs of a transaction that was undone for others' sake: serialization_failure,
deadlock_detected, lock_not_available."""

_NO_TABLES = {"42P01", "42703", "3F000"}  # undefined table, column, schema
_NO_RIGHT = "42501"
_READ_ONLY = "25006"
_NOT_SUPPORTED = "0A000"
_CHECKS_SETTING = "call_bool_check_hook"
"""The function of PostgreSQL in which a standby refuses to begin a transaction that may write: only
there is that SQLSTATE, one of many uses, about it. Its words may be in any language."""

_GAVE_UP = "57014"  # query_canceled, by a time limit of the server's
_WRONG_VALUE = "22"  # class data_exception
_DAMAGED = {"XX001", "XX002"}  # data, or an index, corrupted
_DISK_FULL = "53100"
_SHORT_OF = ("53", "58")
"""Classes of SQLSTATEs: of resources such as disk space and memory, and errors of the system."""

# A server that turns a connection away gives its reason in words only.
_TURNED_AWAY = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|role .* does not exist"
    r"|not permitted to log in|permission denied for database",
    re.IGNORECASE,
)
_NO_CONNECTION_LEFT = re.compile(
    r"too many (?:clients|connections)|connection slots|no more connections", re.IGNORECASE
)
_NO_DATABASE = re.compile(r"database .* does not exist", re.IGNORECASE)
_NO_HOST = re.compile(r"could not translate host name|resolve host", re.IGNORECASE)
_NO_TRANSACTIONS = re.compile(r"statement pooling mode", re.IGNORECASE)
_STRANGE_OPTION = re.compile(r"unsupported startup parameter: (\w{1,40})", re.IGNORECASE)
_NO_TLS = re.compile(r"SSL|certificate|GSSAPI|channel binding", re.IGNORECASE)
_ITS_WORDS = re.compile(r"(?:FATAL|ERROR|PANIC):\s+([^\n]+)")
MAX_QUOTED = 200


class Meanings:
    """Translates the errors of one server for whoever asked.

    Args:
        url: of the database.
    """

    def __init__(self, url: URL) -> None:
        self._database = url.database
        host = url.host or "this machine"
        self._server = (
            f"[{host}]:{url.port or 5432}" if ":" in host else f"{host}:{url.port or 5432}"
        )
        self._password = str(url.password or "")

    def meaning(self, error: DBAPIError) -> HerdError | None:
        """Return the herd's error in place of the driver's; None: what was asked cannot be done."""
        cause = error.orig
        state = getattr(cause, "sqlstate", None)
        if state in UNDONE:
            return HerdUnavailable("The database is busy; try again.")
        if state == _GAVE_UP:
            return HerdUnavailable("The database gave up what took it too long; try again.")
        if _NO_TRANSACTIONS.search(str(cause)):
            return SetupError(
                f"PgBouncer at {self._server} gives each statement a connection of its own; set "
                f"its pool_mode to transaction or session."
            )
        if error.connection_invalidated or (cause is not None and POSTGRES.is_busy(cause)):
            return Lost("The connection to the database was lost; try again.")
        if state in _NO_TABLES:
            return SetupError(
                "The database has no tables of this version; `herd init` brings it up to date."
            )
        if state == _NO_RIGHT:
            return SetupError(
                "The user in HERD_DATABASE_URL lacks the rights for this; use the one that "
                "created the tables."
            )
        if state == _READ_ONLY or (state == _NOT_SUPPORTED and _is_refused_setting(cause)):
            return _Unreachable(
                "The database does not accept writes; it may be a standby, where HERD_DATABASE_URL "
                "has to name the primary."
            )
        if state in _DAMAGED:
            return SetupError(f"The database is damaged: {self._quoted(str(cause))}.")
        if state == _DISK_FULL:
            return _Unreachable(
                f"The disk of PostgreSQL at {self._server} is full; make room there and try again."
            )
        if state is not None and state.startswith(_SHORT_OF):
            return _Unreachable(
                f"PostgreSQL at {self._server} cannot do this now: {self._quoted(str(cause))}; "
                f"try again later."
            )
        if error.statement is None and state is None:
            return self._not_connected(error)
        return None

    def _quoted(self, words: str) -> str:
        """Return the server's own words, on one line; never the password."""
        line = words.partition("\n")[0].strip()
        if self._password:
            line = line.replace(self._password, "***")
        return f'"{line[:MAX_QUOTED]}"'

    def _not_connected(self, error: DBAPIError) -> HerdError:
        """Return the error of a connection that failed: the server says no, or nothing at all."""
        if isinstance(error, ProgrammingError):
            return SetupError("HERD_DATABASE_URL has an option that PostgreSQL does not know.")
        reason = str(error.orig)
        if _TURNED_AWAY.search(reason):
            return SetupError(
                f"PostgreSQL at {self._server} rejected the user and password in HERD_DATABASE_URL."
            )
        if _NO_DATABASE.search(reason):
            return SetupError(
                f"PostgreSQL at {self._server} has no database {self._database!r}; `createdb "
                f"{self._database}` creates it."
            )
        if said := _ITS_WORDS.search(reason):
            if option := _STRANGE_OPTION.match(said[1]):
                return SetupError(
                    f"PgBouncer at {self._server} does not take the option {option[1]!r} in "
                    f"HERD_DATABASE_URL; leave it out, or name it in ignore_startup_parameters."
                )
            advice = "try again"
            if _NO_CONNECTION_LEFT.search(said[1]):
                advice = "raise its max_connections, or run fewer programs on it"
            return _Unreachable(
                f"PostgreSQL at {self._server} accepts no connections: {self._quoted(said[1])}; "
                f"{advice}."
            )
        if _NO_HOST.search(reason):
            return _Unreachable(
                f"The host of PostgreSQL at {self._server} cannot be looked up; is "
                f"HERD_DATABASE_URL right?"
            )
        if _NO_TLS.search(reason):
            return SetupError(
                f"PostgreSQL at {self._server} and HERD_DATABASE_URL do not agree on encryption; "
                f"look at its sslmode and certificates."
            )
        return _Unreachable(f"PostgreSQL at {self._server} does not answer; try again.")


class _Unreachable(HerdUnavailable):
    """The server does not do what it is asked now; the message names it."""

    told_callers = "The herd's database is out of reach; try again."


class Lost(HerdUnavailable):
    """The connection was lost: what it was about to do may have been done, if that was a commit."""


def hide_values(context: ExceptionContext) -> None:
    """Leave out of an error what the server quotes of the values: errors are logged.

    It quotes them after its first line (`DETAIL: Failing row contains ...`), and within it where
    a value itself is wrong. What may say so is a prompt, an answer or a nonce.
    """
    cause, error = context.original_exception, context.sqlalchemy_exception
    words = str(cause)
    kept = words.partition("\n")[0]
    if (getattr(cause, "sqlstate", None) or "").startswith(_WRONG_VALUE):
        kept = kept.partition(': "')[0]
    if kept == words or error is None:
        return
    cause.args = (kept,)
    error.args = (str(error.args[0]).replace(words, kept), *error.args[1:])


def _is_refused_setting(cause: object) -> bool:
    diag = getattr(cause, "diag", None)
    return getattr(diag, "source_function", None) == _CHECKS_SETTING
