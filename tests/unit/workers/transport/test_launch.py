"""Where the lines of a process go, and which broker its app speaks to."""

from __future__ import annotations

import logging
import os
import sys

import pytest
import structlog
from celery.app.utils import Settings

from herder.service.app import make_app
from herder.settings import load_settings
from workers.transport.command_line import read_command_line
from workers.transport.launch import EXIT_SETUP, EXIT_SOFTWARE, Launch
from workers.transport.options import WORKER


@pytest.fixture
def launch(tmp_path):
    arguments = ["-A", "workers", "worker", "-f", str(tmp_path / "worker.log")]
    return Launch(WORKER, read_command_line(arguments, {}))


def test_lines_go_to_the_log_file_also_once_it_was_rotated(launch, tmp_path, capfd):
    launch.log("INFO")
    log = structlog.get_logger("workers.test")
    log.info("before", order="a")
    (tmp_path / "worker.log").rename(tmp_path / "worker.log.1")
    log.info("after", order="b")
    logging.getLogger("celery.worker").warning("of Celery's own")
    assert "before" in (tmp_path / "worker.log.1").read_text()
    now = (tmp_path / "worker.log").read_text()
    assert "after" in now
    assert "order=b" in now
    assert "of Celery's own" in now
    assert "\x1b" not in now
    assert capfd.readouterr() == ("", "")


def test_why_it_cannot_start_is_on_standard_error_and_in_the_log_file(launch, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        launch.die("The setting HERD_SLOTS must be a whole number.")
    assert ended.value.code == 78
    assert capsys.readouterr().err == "The setting HERD_SLOTS must be a whole number.\n"
    (line,) = (tmp_path / "worker.log").read_text().splitlines()
    assert line.endswith(" The setting HERD_SLOTS must be a whole number.")


def test_a_log_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    missing = tmp_path / "nowhere" / "worker.log"
    line = read_command_line(["-A", "workers", "worker", "-f", str(missing)], {})
    with pytest.raises(SystemExit) as ended:
        Launch(WORKER, line).check("redis://127.0.0.1", {})
    assert ended.value.code == 78
    (said,) = capsys.readouterr().err.splitlines()
    assert str(missing) in said


@pytest.mark.parametrize("kind", ["read", "write", "both"])
def test_an_app_speaks_to_the_herds_broker_whatever_celerys_variables_say(
    kind, tmp_path, monkeypatch, caplog
):
    """As in a program that buys beside an app of Celery's of its own."""
    for name in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL"):
        monkeypatch.setenv(f"CELERY_{name}", "redis://elsewhere:1/9")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://elsewhere:1/8")
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "tests.unit.workers.transport.no_such_module")
    monkeypatch.setenv("CELERY_LOADER", "default")
    own = Settings({}, [{"broker_url": "x"}])
    assert own.broker_url == "redis://elsewhere:1/9", "what Celery itself makes of it"
    with caplog.at_level(logging.INFO):
        app = make_app(load_settings(tmp_path, redis_url="redis://127.0.0.1:7777/5"))
    assert "celery_variables_ignored variables=CELERY_BROKER_URL,CELERY_BROKER" in caplog.text
    assert "elsewhere" not in caplog.text
    ask = {
        "read": app.connection_for_read,
        "write": app.connection_for_write,
        "both": app.connection,
    }
    for connection in (ask[kind](), app.pool.connection):
        at = (connection.hostname, connection.port, connection.virtual_host)
        assert at == ("127.0.0.1", 7777, "5")
    assert app.backend.as_uri() == "disabled://"


def test_what_nobody_foresaw_at_the_start_ends_the_process(monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", sys.exit)
    launch = Launch(WORKER, None)
    with pytest.raises(SystemExit) as end, launch.setting_up():
        raise ZeroDivisionError("secret")
    assert end.value.code == EXIT_SOFTWARE
    assert "It cannot start" in capsys.readouterr().err


def test_who_ends_at_the_start_with_a_reason_ends_with_that(capsys):
    launch = Launch(WORKER, None)
    with pytest.raises(SystemExit) as end, launch.setting_up():
        launch.die("No such file.")
    assert end.value.code == EXIT_SETUP
    assert capsys.readouterr().err == "No such file.\n"
