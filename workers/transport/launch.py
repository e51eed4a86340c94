"""The start of a process by Celery: what its options mean here, and where its log goes.

A process that cannot start says why in one line, on standard error and, where there is one, in
the log file: a process that was detached has no standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from celery.utils.nodenames import default_nodename, host_format, node_format

from workers.transport.command_line import CommandLine, typed_command_line
from workers.transport.event_log import EventLog
from workers.transport.logs import configure_logging
from workers.transport.options import HELP, NOT_REACHED, Role, named, refusal

_log = EventLog("workers.transport.launch")

EXIT_SOFTWARE = 70  # EX_SOFTWARE of sysexits.h: a fault of its own
EXIT_SETUP = 78  # EX_CONFIG of sysexits.h: starting again would not help
EXIT_UNAVAILABLE = 69  # what Celery's own commands end with where nobody answers

_LEVELS = {"FATAL": "CRITICAL"}


@dataclass(frozen=True, slots=True)
class Launch:
    """A process as it was asked for.

    Attributes:
        role: what it is to be.
        line: what was typed; None where Celery's command does not run.
    """

    role: Role
    line: CommandLine | None

    def _value(self, name: str) -> str:
        given = self.line.options.get(name) if self.line is not None else None
        return "" if given is None else given.value

    @property
    def name(self) -> str:
        """The name of `-n`; empty where it was not given."""
        return named(self._value("hostname")) if self._value("hostname") else ""

    @property
    def threads(self) -> int | None:
        """The number of orders at once of `-c`; None where it was not given."""
        return int(self._value("concurrency") or 0) or None

    @property
    def detaches(self) -> bool:
        """Whether another process is started in its place, which nobody looks at."""
        return self.line is not None and "detach" in self.line.options

    @property
    def log_level(self) -> str | None:
        """The level that `-l` asks for; None where it was not given."""
        level = self._value("loglevel").upper()
        return _LEVELS.get(level, level) or None

    @property
    def log_file(self) -> str:
        """The file of `-f`, named as Celery names it; empty for standard error."""
        if not self._value("logfile"):
            return ""
        try:
            node = host_format(default_nodename(self._value("hostname")))
            return str(node_format(self._value("logfile"), node))
        except ValueError:
            return ""  # it holds a format that Celery does not know, and will refuse

    def check(self, broker: str, environment: Mapping[str, str] = os.environ) -> None:
        """End the process if it was asked for what cannot work.

        Args:
            broker: the address of the herd's own broker.
            environment: what Celery reads beside what was typed.
        """
        if self.line is None:
            return
        sentence = refusal(self.line, environment, self.role, broker)
        if sentence is not None:
            self.die(sentence, EXIT_UNAVAILABLE if self.line.command in NOT_REACHED else EXIT_SETUP)
        if self.log_file and not self._value("uid") and not self._value("gid"):
            self._try_log_file()

    def _try_log_file(self) -> None:
        try:
            with open(self.log_file, "a"):
                pass
        except OSError as error:
            sentence = f"The log file {self.log_file} cannot be written ({error.strerror})."
            sys.stderr.write(f"{sentence}\n")
            raise SystemExit(EXIT_SETUP) from None

    def log(self, level: str) -> None:
        """Send the process's log where it was asked to go.

        Args:
            level: the lowest that is logged, unless `-l` says otherwise.
        """
        plain = bool(self.line is not None and "no_color" in self.line.options)
        configure_logging(self.log_level or level, self.log_file, plain=plain)

    def tell(self, sentence: str) -> None:
        """Say why this process ends."""
        sys.stderr.write(f"{sentence}\n")
        if not self.log_file:
            return
        try:
            with open(self.log_file, "a") as file:
                file.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
        except OSError:
            return  # it was said on standard error

    def die(self, sentence: str, code: int = EXIT_SETUP) -> NoReturn:
        """End the process with one clear line: no traceback tells more."""
        self.tell(sentence)
        raise SystemExit(code)

    @contextmanager
    def setting_up(self) -> Iterator[None]:
        """End the process if what sets it up fails in a way that nobody foresaw.

        Celery logs what a function that it calls at the start raises, and goes on: the process
        would say that it is ready, and do nothing.
        """
        try:
            yield
        except Exception:  # noqa: BLE001  (told, and the end of the process)
            _log.exception("start_failed")
            self.tell("It cannot start: something in it failed, as its log shows.")
            # At once: threads that were started already would keep it.
            os._exit(EXIT_SOFTWARE)


def launched(role: Role) -> Launch:
    """Return the line that started this process; its help says from now on what options do."""
    line = typed_command_line()
    if line is not None and line.command == "worker":
        from celery.bin.worker import worker

        worker.epilog = HELP
    return Launch(role, line)
