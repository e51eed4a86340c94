"""The rules for Celery's options: those that work here, and sentences for those that cannot.

Celery takes most of them without a word, whatever the app is. A worker whose options did not fit
would be counted with slots that it does not have, and orders would wait for it until their claims
lapse: so each option works, or ends the process with one line that says what to type instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from celery.utils.nodenames import default_nodename, host_format

from workers.transport.command_line import CommandLine, Given

MAX_THREADS = 256
MAX_NAME = 128

NOT_REACHED = ("status", "inspect", "control")
"""Celery's commands that ask its workers by remote control, which is off here."""


SHOWS_SETTINGS = ("report",)
"""Celery's commands that would show what its variables say, and not what is used."""


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of process that Celery starts.

    Attributes:
        app: what stands after `-A`.
        queue: the one that it takes from.
        name: what people call it.
        show: the command that shows those that run.
    """

    app: str
    queue: str
    name: str
    show: str

    @property
    def command(self) -> str:
        """The command that starts it."""
        return f"celery -A {self.app} worker -Q {self.queue}"


WORKER = Role("workers", "inference", "worker", "herd worker list")
HERDER = Role("herder", "herder", "herder", "herd info")

HELP = """In a herd:

\b
-c N         how many orders run at once, before HERD_SLOTS
-n NAME      the name in `herd worker list`, logs and Flower
-Q QUEUE     inference for a worker, herder for a herder; may be left out
-f FILE, -D  the log, and why it cannot start, go to the file
-l LEVEL     before HERD_LOG_LEVEL
\b
Refused, with one line that says what to type instead: other pools than
threads, --autoscale, -X, -I, -S, -B, --purge, limits of time and of
children, -b, --config, --result-backend. README.md has the whole table.
"""
"""A part of the help of Celery's command."""

_CHILDREN = "a {name} is one process with threads, and has no child processes to replace"
_LIMITS = (
    "a thread cannot be ended by a limit; each order has one of its own (`herd submit --run-limit`)"
)
_PERIODIC = "herders do the herd's periodic work themselves"

_NEVER = {
    "autoscale": "the threads of a {name} stay as many as they were when it started",
    "max_tasks_per_child": _CHILDREN,
    "max_memory_per_child": _CHILDREN,
    "pool_start_method": _CHILDREN,
    "time_limit": _LIMITS,
    "soft_time_limit": _LIMITS,
    "beat": _PERIODIC,
    "schedule_filename": _PERIODIC,
    "scheduler": _PERIODIC,
    "purge": "orders wait in the database, and what is in the queue is about to run; "
    "`herd order cancel` cancels an order",
    "exclude_queues": "a {name} takes from queue {queue} and from no other",
    "statedb": "there is nothing to remember: no task is revoked by Celery here",
    "include": "a {name} runs no tasks but the herd's own",
}
"""Options that can never work, and why."""

_GLOBAL = {
    "broker": "the herd's broker is the one of HERD_BROKER_URL, or of HERD_REDIS_URL where that "
    "is not set: set those",
    "result_backend": "no results are kept in a backend: answers come back as signed messages",
    "loader": "the herd's settings are HERD_* alone",
    "config": "the herd's settings are HERD_* alone",
}
"""The same of the options that stand before the command."""

_VARIABLES = {
    "CELERY_BROKER_URL": "broker",
    "CELERY_BROKER_READ_URL": "broker",
    "CELERY_BROKER_WRITE_URL": "broker",
    "CELERY_RESULT_BACKEND": "result_backend",
    "CELERY_LOADER": "loader",
    "CELERY_CONFIG_MODULE": "config",
}
"""Variables that Celery lets go before an app's own settings, and the option that they are."""


def refusal(
    line: CommandLine, environment: Mapping[str, str], role: Role, broker: str
) -> str | None:
    """Return the reason for which a process may not start as it was asked to; None if it may.

    Args:
        line: what was typed.
        environment: what Celery reads besides.
        role: what the process is to be.
        broker: the address of the herd's own broker, which may be named.
    """
    if line.command in NOT_REACHED:
        return (
            f"`celery {line.command}` cannot reach a {role.name}: remote control is off in a herd, "
            f"because its messages are not signed. `{role.show}` shows what runs."
        )
    if line.command == "beat":
        return f"`celery beat` has nothing to do in a herd: {_PERIODIC}."
    if line.command == "purge":
        return f"`celery purge` cannot be used in a herd: {_why(_NEVER['purge'], role)}."
    starts = line.command == "worker"
    for name, given in line.options.items():
        why = _GLOBAL.get(name)
        same = name == "broker" and given.value == broker
        # Others than those that it would lead astray do without a variable that is somebody else's.
        if why is not None and not same and (starts or not given.variable):
            return _refused(given, why, role)
    if starts or line.command in SHOWS_SETTINGS:
        return _of_variables(environment, role, broker) or _of_worker(line, role)
    return None


_MORE = {"autoscale": " -c N", "concurrency": " -c N", "hostname": " -n NAME"}
"""The end of the command to type."""


def ignored_variables(environment: Mapping[str, str], broker: str) -> list[str]:
    """Return Celery's variables that say something else than the herd's settings."""
    return [
        variable
        for variable, name in _VARIABLES.items()
        if environment.get(variable, "") not in ("", broker if name == "broker" else "")
    ]


def _of_variables(environment: Mapping[str, str], role: Role, broker: str) -> str | None:
    for variable in ignored_variables(environment, broker):
        given = Given(variable, environment[variable], variable=True)
        return _refused(given, _GLOBAL[_VARIABLES[variable]], role)
    return None


def _of_worker(line: CommandLine, role: Role) -> str | None:
    for name, given in line.options.items():
        if name in _NEVER:
            return _refused(given, _NEVER[name], role, more=_MORE.get(name, ""))
        said = f" {given.value[:40]}"
        if name == "queues" and _queues(given.value) != {role.queue}:
            return _refused(given, _NEVER["exclude_queues"], role, said=said)
        if name in _FITS:
            fits, why = _FITS[name]
            if not fits(given.value):
                return _refused(given, why, role, said=said, more=_MORE.get(name, ""))
    if line.rest:
        return (
            f"A {role.name} takes no settings on its command line, as {line.rest[0][:40]!r}; set "
            f"HERD_* instead, and type: {role.command}"
        )
    return None


def _refused(given: Given, why: str, role: Role, *, said: str = "", more: str = "") -> str:
    if given.variable:
        return (
            f"The variable {given.shown} cannot be used in a herd: {_why(why, role)}. Unset it for "
            "this process."
        )
    return (
        f"The option {given.shown}{said} cannot be used in a herd: {_why(why, role)}. Type: "
        f"{role.command}{more}"
    )


def _why(why: str, role: Role) -> str:
    return why.format(name=role.name, queue=role.queue)


def _queues(value: str) -> set[str]:
    return {one.strip() for one in value.split(",")} - {""}


def _is_threads(value: str) -> bool:
    return value.lower() == "threads"


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdecimal() and int(value) <= MAX_THREADS


def _is_one(value: str) -> bool:
    return value in ("0", "1")  # 0 counts as not given


def _is_name(value: str) -> bool:
    try:
        name = named(value)
    except ValueError:
        return False
    return len(name) <= MAX_NAME and re.fullmatch(r"[\w.-]+(@[\w.-]+)?", name, re.ASCII) is not None


_FITS: dict[str, tuple[Callable[[str], bool], str]] = {
    "pool": (_is_threads, "a {name} runs on threads of one process, and on no other pool"),
    "concurrency": (_is_count, f"N is a whole number from 1 to {MAX_THREADS}"),
    "prefetch_multiplier": (_is_one, "an order is taken only for a thread that is free"),
    "hostname": (_is_name, "a name is letters, digits, dots and dashes, and may end in @%h"),
}
"""Options that work with some values: which, and what is said of the others."""


def named(value: str) -> str:
    """Return the name that `-n` gives a process: its host for %h, and as it is without an `@`.

    Raises:
        ValueError: it holds a format that Celery does not know.
    """
    return str(host_format(default_nodename(value) if "@" in value else value))
