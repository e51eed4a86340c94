"""Where a process is to die, once: in the environment, as `step:when:signal`.

The herder's transactions are known by the function that opens them, publications by what they
publish. `before` is with everything done but the commit or the sending, `after` with that done and
nothing else. Production code knows nothing of this: the apps and the script of these tests put it
in.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from herder import database as database_module
from herder.database import Database
from workers.transport.sender import CelerySender
from workers.transport.streams import Streams
from workers.transport.tasks import NewTask
from workers.wire import INFER_TASK, NUDGE_TASK, OUTCOME_TASK

POINT, MARK = "CHAOS_POINT", "CHAOS_MARK"
"""The environment's names: the point, and a file that says that it was reached."""

PUBLISHED = {
    INFER_TASK: "publish_job",
    NUDGE_TASK: "publish_nudge",
    OUTCOME_TASK: "publish_outcome",
}


class Point:
    """One point of one process."""

    def __init__(self, given: str, mark: str) -> None:
        self._step, self._when, name = given.split(":") if given else ("", "", "KILL")
        self._signal = signal.Signals[f"SIG{name}"]
        self._mark = mark

    def reach(self, step: str, when: str) -> None:
        """Die here, if here is where, and if nobody did before."""
        if (step, when) != (self._step, self._when):
            return
        try:
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        os.kill(os.getpid(), self._signal)


class _Transaction(AbstractContextManager[Any]):
    """A transaction, and a point before and after its commit."""

    def __init__(self, inner: AbstractContextManager[Any], point: Point, step: str) -> None:
        self._inner, self._point, self._step = inner, point, step

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if kind is None:
            self._point.reach(self._step, "before")
        swallowed = self._inner.__exit__(kind, error, trace)
        if kind is None:
            self._point.reach(self._step, "after")
        return swallowed


def install() -> Point:
    """Put this process's point into everything that commits or publishes."""
    point = Point(os.environ.get(POINT, ""), os.environ.get(MARK, ""))
    write, publish_many = Database.write, CelerySender.publish_many
    add_controls = Streams.add_controls

    def write_and_die(self: Database) -> AbstractContextManager[Any]:
        return _Transaction(write(self), point, _opened_by())

    def publish_and_die(self: CelerySender, tasks: Sequence[NewTask]) -> None:
        step = PUBLISHED[tasks[0].task]
        point.reach(step, "before")
        publish_many(self, tasks)
        point.reach(step, "after")

    def control_and_die(self: Streams, messages: Sequence[tuple[str, str]]) -> None:
        point.reach("control", "before")
        add_controls(self, messages)
        point.reach("control", "after")

    patched: list[tuple[Any, str, Any]] = [
        (Database, "write", write_and_die),
        (CelerySender, "publish_many", publish_and_die),
        (Streams, "add_controls", control_and_die),
    ]
    for owner, name, wrapped in patched:
        setattr(owner, name, wrapped)
    return point


def _opened_by() -> str:
    """The function outside of the database's own module that opens a transaction."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename == database_module.__file__ and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_name
