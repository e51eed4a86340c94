"""The herd is not set up, or does not answer."""

from __future__ import annotations

from herder.errors.base import HerdError


class SetupError(HerdError):
    """Raised when the home folder, a key or a setting is missing or wrong."""

    code = "setup_error"
    told_callers = "The herd is not set up; its operator has to look at it."


class DatabaseVersionMismatch(SetupError):
    """Raised when the database was made by another version: nothing was read or written."""

    code = "database_version"


class HerdUnavailable(HerdError):
    """Raised when the database is busy or out of reach; the same call may work later."""

    code = "herd_unavailable"
