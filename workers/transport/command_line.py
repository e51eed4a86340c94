"""Reads what was typed after `celery`, by Celery's own parsers, before any of it takes effect.

The app's module is loaded before Celery looks at a command's options. So what cannot work can be
refused there: before the process detaches, and while it is known which options were given, and
which are Celery's defaults.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

_OFF = ("0", "false", "f", "no", "n", "off")
"""Values of a variable that leave a flag off, as click has it."""


@dataclass(frozen=True, slots=True)
class Given:
    """An option that was given, on the command line or by one of Celery's variables.

    Attributes:
        shown: what to call it: `-P`, or the variable's name.
        value: as it was typed; empty for a flag.
        variable: whether it stands in the environment.
    """

    shown: str
    value: str
    variable: bool = False


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The command line of a `celery` process.

    Attributes:
        command: Celery's command: `worker`, `flower`, `status`.
        options: what was given, by Celery's name of the option.
        rest: what is no option: Celery takes it as settings of the app.
    """

    command: str
    options: Mapping[str, Given]
    rest: tuple[str, ...] = ()


def typed_command_line() -> CommandLine | None:
    """Return the words that were typed, if Celery's command loads the app just now; else None."""
    context = click.get_current_context(silent=True)
    module = sys.modules.get("celery.bin.celery")
    if context is None or module is None or context.find_root().command is not module.celery:
        return None
    return read_command_line(sys.argv[1:], os.environ)


def read_command_line(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> CommandLine | None:
    """Read a command line of `celery`; None where Celery itself will refuse it.

    Args:
        arguments: what stands after `celery`.
        environment: where Celery looks for options that were not typed.
    """
    from celery.bin.celery import celery

    try:
        options, rest = _parse(celery, "CELERY", arguments, environment)
        if not rest or rest[0] not in celery.commands:
            return None
        name = rest[0]
        # Of options alone: what other commands take besides is their own.
        if name != "worker":
            return CommandLine(name, options)
        of_worker, rest = _parse(
            celery.commands[name], f"CELERY_{name.upper()}", rest[1:], environment
        )
    except click.UsageError:
        return None
    return CommandLine(name, {**options, **of_worker}, tuple(rest))


def _parse(
    command: click.Command, prefix: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[dict[str, Given], list[str]]:
    context = click.Context(command, **command.context_settings)
    typed, rest, _ = command.make_parser(context).parse_args(list(arguments))
    given: dict[str, Given] = {}
    for option in command.params:
        flag = isinstance(option, click.Option) and option.is_flag
        if option.name in typed:
            value = "" if flag else str(typed[option.name])
            given[option.name] = Given(_as_typed(option, arguments), value)
            continue
        named = (option.envvar,) if isinstance(option.envvar, str) else option.envvar or ()
        for variable in (*named, f"{prefix}_{option.name.upper()}"):
            value = environment.get(variable, "")
            if value and not (flag and value.lower() in _OFF):
                given[option.name] = Given(variable, value, variable=True)
                break
    return given, rest


def _as_typed(option: click.Parameter, arguments: Sequence[str]) -> str:
    """Return the form of an option that was used: `-c`, or `--concurrency`."""
    for argument in reversed(arguments):
        for form in (*option.opts, *option.secondary_opts):
            if argument == form or argument.startswith(f"{form}="):
                return form
            if not form.startswith("--") and argument.startswith(form):
                return form
    return option.opts[-1]
