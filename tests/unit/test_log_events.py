"""Log events have one shape everywhere: a name in snake_case, and ids and reasons by keyword."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.transport.event_log import EventLog

ROOT = Path(__file__).parents[2]
WRITERS = {
    ROOT / "workers/transport/event_log.py",
    ROOT / "workers/transport/repeats.py",
    ROOT / "workers/transport/logs.py",
}
"""What sets logging up, and what writes events through it."""
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log", "msg"}
MAKERS = {"EventLog", "get_logger", "getLogger"}
EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for room in ("herder", "workers", "ledger"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if path not in WRITERS:
                yield path, ast.parse(path.read_text())


def last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def logs_of(module: ast.Module) -> set[str]:
    """The names of a module's loggers, as variables, attributes and arguments."""
    found = {"log", "_log", "logger", "_logger"}
    for node in ast.walk(module):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        if last_name(node.value.func) in MAKERS:
            found |= {last_name(target) for target in node.targets}
    return found


def events() -> Iterator[tuple[str, ast.Call]]:
    for path, module in modules():
        logs = logs_of(module)
        for node in ast.walk(module):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and last_name(node.func.value) in logs
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def names(node: ast.expr) -> list[str] | None:
    """The events that an argument stands for; None if it is not a literal."""
    if isinstance(node, ast.IfExp):
        either, other = names(node.body), names(node.orelse)
        return None if either is None or other is None else either + other
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return None


def test_each_event_is_a_name_in_snake_case_and_the_rest_stands_in_keywords():
    found = list(events())
    assert len(found) > 80, "the loggers of herder, workers and ledger are found"
    wrong = [
        where
        for where, call in found
        if len(call.args) != 1
        or not (said := names(call.args[0]))
        or not all(EVENT.fullmatch(one) for one in said)
    ]
    assert wrong == []


def test_nobody_writes_through_logging_but_by_the_one_log_of_events():
    wrong = [
        str(path.relative_to(ROOT))
        for path, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "logging" in {getattr(node, "module", ""), *(one.name for one in node.names)}
    ]
    assert wrong == []


def test_nothing_that_a_program_loads_logs_through_structlog():
    """Left alone, structlog prints to standard output, which is the program's."""
    loads = "import herder.local.local_herd, herder.client.http.remote_herd, sys; "
    shown = "print('structlog' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loads + shown], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_an_event_is_one_line_whatever_stands_in_it(caplog):
    caplog.set_level(logging.INFO, "a-test")
    log = EventLog("a-test")
    log.info("order_ended", order="o-1", reason="a line\nERROR no_such_event", empty="", what=None)
    assert caplog.messages == [
        r"order_ended order=o-1 reason='a line\nERROR no_such_event' empty= what=None"
    ]
    log.warning("said", why='it\'s "so" %s')
    assert caplog.messages[1:] == [r"""said why='it\'s "so" %s'"""]


@pytest.mark.parametrize(
    ("lowered", "levels"),
    [(False, ["INFO", "WARNING", "ERROR", "ERROR"]), (True, ["DEBUG", "INFO", "ERROR", "ERROR"])],
)
def test_only_what_passes_by_itself_is_lowered_in_a_program(caplog, lowered, levels):
    caplog.set_level(logging.DEBUG, "a-test")
    log = EventLog("a-test", lowered=lowered)
    log.info("one")
    log.warning("two")
    log.error("three")
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception("four", order="o-1")
    assert [one.levelname for one in caplog.records] == levels
    assert caplog.records[-1].exc_info
    assert caplog.messages[-1] == "four order=o-1"
