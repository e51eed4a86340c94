"""Adapts the driver, psycopg 3: how it waits, and how text is sent.

The driver is loaded when it is first used: a herd on SQLite needs none.
"""

from __future__ import annotations

import time
from functools import lru_cache
from math import ceil
from typing import Any

from herder.db.outages import give_up_s


def in_time(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options to connect with, bounded by the time at which the caller gives up."""
    until_s, ours_s = give_up_s(), given.get("connect_timeout")
    if until_s is None or not isinstance(ours_s, int):
        return given
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise _gave_up()
    return {**given, "connect_timeout": max(2, min(ours_s, ceil(left_s)))}


def _gave_up() -> Exception:
    from psycopg import OperationalError  # only where there is one

    return OperationalError("the server did not answer in time")


@lru_cache(maxsize=1)
def connection_type() -> type[Any]:
    """Return connections that wait no longer than who uses them, as `giving_up` says."""
    from psycopg import Connection as PsycopgConnection  # only where there is one

    class Impatient(PsycopgConnection[Any]):
        def wait(self, gen: Any, *args: Any, **more: Any) -> Any:
            until_s = give_up_s()
            bounded = gen if until_s is None else self._until(gen, until_s)
            return super().wait(bounded, *args, **more)

        def _until(self, gen: Any, until_s: float) -> Any:
            """Wrap `gen`, which the driver also resumes, ten times a second, when nothing came."""
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if not ready and time.monotonic() >= until_s:
                        # What the server would answer yet is nobody's any more.
                        self.pgconn.finish()
                        raise _gave_up()
                    wanted = gen.send(ready)
            except StopIteration as done:
                return done.value

    return Impatient


@lru_cache(maxsize=1)
def text_dumper() -> type[Any]:
    """Return the adapter of strings: a model may write a NUL, which PostgreSQL cannot hold."""
    from psycopg.types.string import StrDumperUnknown  # only where there is one

    class TextDumper(StrDumperUnknown):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))

    return TextDumper
