"""The herd that the machine of `desk_machine` drives: all that it does is undone in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from herder.db.database import Database
from tests.support.house import House

FUNDS = {"ada": 3000, "bob": 120}
SETTINGS = {"claim_s": 2, "lease_s": 3, "max_attempts": 2, "max_dispatches": 4}
HALF_LIFE_S = 5


class OneTransaction(Database):
    """A database of which all is undone in the end: each transaction is a savepoint in one."""

    def __init__(self, url: str) -> None:
        super().__init__(url, lease_s=3600)  # nobody else is there to be kept waiting

    def begin(self) -> None:
        self._whole = super().write()
        self._connection = self._whole.__enter__()

    def undo(self) -> None:
        self._whole.__exit__(_Undo, _Undo(), None)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._connection.begin_nested():
            yield self._connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        yield self._connection


class _Undo(Exception):
    pass


def new_house(make_house: Callable[..., House]) -> House:
    """A herd for a machine."""
    house = make_house(policy={"auto_half_life_s": HALF_LIFE_S}, **SETTINGS)
    for account, amount in FUNDS.items():
        house.fund(amount, account)
    return house.on(OneTransaction(house.settings.database))
