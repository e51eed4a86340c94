"""Points at which a process dies: before and after whatever it commits, and whatever it sends.

A point is written `step/side/signal`, as in `Settlement.settle/before/KILL`. A commit's step is the
function that opens the transaction; what is sent is named by who sends it and why. `before` is with
everything done but the commit or the sending, `after` with that done and nothing else. Each point
is reached once, by whichever of the processes that were given it comes there first.

Production code knows nothing of this: the apps and the client's program of these tests put it in.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from herder.db import database as database_module
from herder.db.database import Database
from herder.local.announcements import Announcements
from herder.orders import closer as closer_module
from herder.service.nudge import Nudger
from workers.agent.agent import Agent
from workers.transport.sender import CelerySender
from workers.transport.streams import Streams
from workers.transport.tasks import NewTask
from workers.wire import HELLO_TASK, INFER_TASK, OUTCOME_TASK, Body

POINTS, MARKS = "CHAOS_POINTS", "CHAOS_MARKS"
"""The environment's names: the points, and the folder in which those that were reached stand."""

THROUGH = frozenset({database_module.__file__, closer_module.__file__})
"""Modules that open a transaction for somebody else."""

SIDES = ("before", "after")

_LATER = threading.local()

REACH_S = 500.0
"""How long a test waits for all of its points. On two cores that were three times
overloaded that took 83; beside another test of this kind, with RabbitMQ, more than 200."""

SENT = {
    INFER_TASK: "dispatch sends",
    OUTCOME_TASK: "worker answers",
    HELLO_TASK: "herder greets",
}

ON_BEHALF = {
    "Service.work": "settle",
    "Service.listen": "hear",
    "Service._lapse": "sweep",
    "Service._expire": "sweep",
    "Service._sweep_outbox": "sweep",
    "LocalHerd.submit": "submit",
    "LocalHerd.send_message": "message",
    "LocalHerd.cancel": "cancel",
}
"""The functions that have something to tell others, and the names under which they do."""


def both(*steps: str, how: str = "KILL") -> list[str]:
    """Both sides of some steps."""
    return [f"{step}/{side}/{how}" for step in steps for side in SIDES]


class Points:
    """Points that some processes share, and which of them were reached.

    Args:
        folder: that it makes, for these points alone.
        places: the points.
    """

    def __init__(self, folder: Path, places: Sequence[str]) -> None:
        self._folder = folder
        self._places = list(places)
        assert len(set(places)) == len(places), "a point that stands twice is reached once"
        folder.mkdir(parents=True)

    @property
    def env(self) -> dict[str, str]:
        """What a process is given that is to die at them."""
        return {POINTS: ";".join(self._places), MARKS: str(self._folder)}

    @property
    def reached(self) -> dict[str, int]:
        """The points that were reached, and the processes that reached them."""
        found = {}
        for number, place in enumerate(self._places):
            with suppress(FileNotFoundError):
                found[place] = int(_mark(self._folder, number).read_text())
        return found

    @property
    def left(self) -> list[str]:
        """The points that nobody has reached yet."""
        reached = self.reached
        return [place for place in self._places if place not in reached]

    def ended(self, pid: int) -> bool:
        """Whether a process was to end at one of them."""
        return any(
            pid == one and not place.endswith("/STOP") for place, one in self.reached.items()
        )


def _mark(folder: Path, number: int) -> Path:
    return folder / f"point{number}"


class _Own:
    """The points of this process."""

    def __init__(self, env: dict[str, str]) -> None:
        self._folder = Path(env.get(MARKS, ""))
        self._places: dict[tuple[str, str], list[tuple[int, signal.Signals]]] = {}
        given = env.get(POINTS, "")
        for number, place in enumerate(given.split(";") if given else ()):
            step, side, how = place.split("/")
            here = self._places.setdefault((step, side), [])
            here.append((number, signal.Signals[f"SIG{how}"]))

    def reach(self, step: str, side: str) -> None:
        """Die here, if here is where, and if nobody did before."""
        for number, how in self._places.get((step, side), ()):
            if not self._is_first(number):
                continue
            if how is signal.SIGTERM:
                os.kill(os.getpid(), how)
            else:
                # To this very thread, which then takes no step more: any other might stop first.
                signal.pthread_kill(threading.get_ident(), how)
            return

    def _is_first(self, number: int) -> bool:
        """Whether this process is the first at a point, which then bears its mark.

        The mark comes into being with its content: another thread may end the process between any
        two steps here, and a mark without a number would be nobody's for ever.
        """
        mine = self._folder / f"{os.getpid()}-{threading.get_ident()}"
        mine.write_text(str(os.getpid()))
        try:
            os.link(mine, _mark(self._folder, number))
        except FileExistsError:
            return False
        finally:
            mine.unlink()
        return True

    @contextmanager
    def around(self, step: str) -> Iterator[None]:
        """Sending, and a point before and after it."""
        self.reach(step, "before")
        yield
        self.reach(step, "after")


class _Transaction(AbstractContextManager[Any]):
    """A transaction, and a point before and after its commit."""

    def __init__(self, inner: AbstractContextManager[Any], own: _Own, step: str) -> None:
        self._inner, self._own, self._step = inner, own, step

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if kind is None:
            self._own.reach(self._step, "before")
        swallowed = self._inner.__exit__(kind, error, trace)
        if kind is None:
            self._own.reach(self._step, "after")
        return swallowed


def install() -> None:
    """Put this process's points into everything that it commits or sends."""
    own = _Own(dict(os.environ))
    write, publish_many = Database.write, CelerySender.publish_many
    add_controls, announce_ended = Streams.add_controls, Streams.announce_ended
    nudge, say, put = Nudger.nudge, Agent._say, Announcements._put
    nudged_for: dict[str, str] = {}

    def write_and_die(self: Database) -> AbstractContextManager[Any]:
        return _Transaction(write(self), own, _opened_by())

    def publish_and_die(self: CelerySender, tasks: Sequence[NewTask]) -> None:
        step = SENT.get(tasks[0].task) or f"{nudged_for[tasks[0].label]} nudges"
        with own.around(step):
            publish_many(self, tasks)

    def control_and_die(self: Streams, messages: Sequence[tuple[str, str]]) -> None:
        with own.around(f"{_announced_for() or _on_behalf()} tells"):
            add_controls(self, messages)

    def announce_and_die(self: Streams, orders: Sequence[str]) -> None:
        with own.around(f"{_announced_for() or _on_behalf()} announces"):
            announce_ended(self, orders)

    def put_for(self: Announcements, kind: str, announce: Callable[[], None]) -> None:
        # It is announced a moment later, on another thread.
        step = _on_behalf()

        def announce_for() -> None:
            _LATER.step = step
            try:
                announce()
            finally:
                _LATER.step = None

        put(self, kind, announce_for)

    def nudge_for(self: Nudger, model: str) -> None:
        # It is sent a moment later, on another thread.
        nudged_for[f"model={model}"] = _on_behalf()
        nudge(self, model)

    def say_and_die(self: Agent, body: Body) -> None:
        with own.around(f"worker says {type(body).__name__}"):
            say(self, body)

    patched: list[tuple[Any, str, Any]] = [
        (Database, "write", write_and_die),
        (CelerySender, "publish_many", publish_and_die),
        (Streams, "add_controls", control_and_die),
        (Streams, "announce_ended", announce_and_die),
        (Nudger, "nudge", nudge_for),
        (Announcements, "_put", put_for),
        (Agent, "_say", say_and_die),
    ]
    for owner, name, wrapped in patched:
        setattr(owner, name, wrapped)


def _opened_by() -> str:
    """The function that has a transaction opened: by the database's module, or by the closer's."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename in THROUGH and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_qualname


def _announced_for() -> str | None:
    """What this thread announces for another; None where it announces nothing of another's."""
    return getattr(_LATER, "step", None)


def _on_behalf() -> str:
    """What is being done, seen from whoever sends something of it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_qualname in ON_BEHALF:
            return ON_BEHALF[frame.f_code.co_qualname]
        frame = frame.f_back
    return "somebody"
