"""Workers and herders as people start them who know Celery: its options, log files and names."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from herder.db.tables import event
from herder.host import home
from herder.store import herd as herd_sql
from tests.support.wait import wait_for

EX_SOFTWARE = 70
EX_CONFIG = 78
EX_UNAVAILABLE = 69
HOST = socket.gethostname()


def start(herd, name, *arguments, app="workers", **env):
    """A process with these options after `celery -A APP worker`."""
    if app == "workers":
        key = home.add_worker_key(herd.database, herd.settings, name)
        env = {"HERD_WORKER_KEY": str(key), **env}
    return herd.start(name, ["-A", app, "worker", *arguments], **env)


def known(herd):
    """The workers that the herder knows, by name."""
    with herd.database.read() as connection:
        return {one.name: one for one in herd_sql.all_workers(connection)}


def ended(pid):
    """Whether a process that is nobody's child here has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.fixture
def detached():
    """The process ids of what was detached; killed at the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("app", "arguments", "words"),
    [
        ("workers", "-Q inference --autoscale 8,2", ("--autoscale", "-c N")),
        ("workers", "-Q inference -P prefork", ("-P prefork", "-A workers worker -Q inference")),
        ("workers", "-Q inference -P processes -D", ("-P processes",)),
        ("workers", "-Q inference -Pgevent", ("-P gevent", "-A workers worker -Q inference")),
        ("workers", "-Q wrong", ("-Q wrong", "-Q inference")),
        ("workers", "-X inference", ("-X", "inference")),
        ("herder", "-Q inference", ("-Q inference", "-A herder worker -Q herder")),
        ("herder", "-Q herder -B", ("-B", "periodic")),
    ],
)
def test_an_option_that_cannot_work_ends_it_with_one_line(make_herd, app, arguments, words):
    child = start(make_herd(), "wrong", *arguments.split(), app=app)
    assert child.ended() == EX_CONFIG, child.log
    (line,) = child.log.splitlines()
    for word in words:
        assert word in line


@pytest.mark.parametrize("app", ["workers", "herder"])
def test_a_pool_that_celery_prepares_before_it_reads_ours_ends_it_with_one_line(
    make_herd, tmp_path, app
):
    """Where gevent is installed, which a stand-in does here; without it Celery ends by itself."""
    herd = make_herd()
    package = tmp_path / "stand-in" / "gevent"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("Timeout = Exception\n")
    (package / "monkey.py").write_text("patch_all = lambda: None\n")
    (package / "signal.py").touch()
    found = f"{package.parent}{os.pathsep}{herd.env['PYTHONPATH']}"
    child = start(herd, "green", "-P", "gevent", app=app, PYTHONPATH=found)
    assert child.ended() == EX_CONFIG, child.log
    (line,) = child.log.splitlines()
    assert "-P gevent" in line


def test_what_nobody_foresaw_at_the_start_ends_it(make_herd, tmp_path):
    """Celery would log it and go on: a worker that says it is ready, and does nothing."""
    herd = make_herd()
    stand_in = "import secrets\nsecrets.token_hex = None\nfrom workers.celery import app\n"
    (tmp_path / "broken_workers.py").write_text(stand_in)
    key = home.add_worker_key(herd.database, herd.settings, "broken")
    found = f"{tmp_path}{os.pathsep}{herd.env['PYTHONPATH']}"
    child = herd.start(
        "broken",
        ["-A", "broken_workers", "worker"],
        HERD_WORKER_KEY=str(key),
        PYTHONPATH=found,
    )
    assert child.ended() == EX_SOFTWARE, child.log
    assert "start_failed" in child.log
    assert "It cannot start" in child.log
    assert "ready." not in child.log


@pytest.mark.parametrize("app", ["workers", "herder"])
def test_a_broker_that_only_celery_knows_ends_it_with_one_line(make_herd, app):
    herd = make_herd()
    other = {"CELERY_BROKER_READ_URL": "redis://:secret@127.0.0.1:6379/9"}
    child = start(herd, "elsewhere", app=app, **other)
    assert child.ended() == EX_CONFIG, child.log
    (line,) = child.log.splitlines()
    assert "CELERY_BROKER_READ_URL" in line
    assert "HERD_BROKER_URL" in line
    assert "secret" not in line


def test_remote_control_says_at_once_that_it_is_off(make_herd):
    herd = make_herd()
    child = herd.start("status", ["-A", "workers", "status"])
    assert child.ended() == EX_UNAVAILABLE
    (line,) = child.log.splitlines()
    assert "`herd worker list`" in line


@pytest.mark.both_brokers
def test_c_is_how_many_orders_run_at_once_and_how_many_are_announced(herd):
    child = start(herd, "w1", "-c", "1", "-P", "threads", "-n", "gpu-1", HERD_SLOTS="4")
    wait_for(lambda: "gpu-1" in known(herd), "it joins")
    assert known(herd)["gpu-1"].slots == 1
    assert "slots=1" in child.log
    orders = [herd.submit(f"Number {number}", 5) for number in range(6)]
    assert {one.result(timeout=60).receipt.worker for one in orders} == {"gpu-1"}
    with herd.database.read() as connection:
        kinds = set(connection.execute(select(event.c.kind)).scalars())
    assert "completed" in kinds
    assert "lapsed" not in kinds


@pytest.mark.parametrize(
    ("given", "name"), [("gpu-2", "gpu-2"), ("w1@%h", f"w1@{HOST}"), ("celery1@box", "celery1@box")]
)
def test_n_names_the_worker(herd, given, name):
    child = start(herd, "w1", "-Q", "inference", "-n", given, HERD_WORKER_NAME="not-this")
    wait_for(lambda: name in known(herd), "it joins")
    assert set(known(herd)) == {name}
    assert f"worker={name}" in herd.children[0].log
    child.says(f"{name if '@' in name else f'{name}@herd'} ready")


def test_f_gets_the_lines_of_both_and_a_file_that_was_moved_is_made_anew(make_herd):
    herd = make_herd()
    folder = herd.folder
    herder = start(herd, "h1", "-Q", "herder", "-f", "herder.log", app="herder")
    worker = start(herd, "w1", "-Q", "inference", "-n", "w1@%h", "-f", "of-%n.log")
    logs = folder / "herder.log", folder / "of-w1.log"
    wait_for(lambda: all(one.exists() for one in logs), "they log")
    # A herder serves a moment before it says that it is ready.
    for said in ("worker_joined", "herder_ready"):
        wait_for(lambda said=said: said in logs[0].read_text(), f"the herder says {said}")
    assert "model_ready" in logs[1].read_text()
    for log in logs:
        log.rename(log.with_suffix(".old"))
    assert worker.stop() == 0
    wait_for(lambda: logs[0].exists() and "worker_gone" in logs[0].read_text(), "it says farewell")
    assert "draining" in logs[1].read_text()
    assert herder.stop() == 0
    for child in (herder, worker):
        assert "[info" not in child.log, "nothing but Celery's banner"


def test_a_refusal_is_in_the_log_file_too(make_herd):
    herd = make_herd()
    log = herd.folder / "all.log"
    child = start(herd, "w1", "-f", str(log), HERD_SLOTS="many")
    assert child.ended() == EX_CONFIG
    assert "HERD_SLOTS" in child.log
    (line,) = log.read_text().splitlines()
    assert "HERD_SLOTS" in line
    child = start(herd, "w2", "-f", str(log), "--autoscale", "3,1")
    assert child.ended() == EX_CONFIG
    assert "--autoscale" in log.read_text().splitlines()[-1]


def test_a_worker_that_was_detached_says_in_its_log_file_why_it_ended(herd, detached):
    log, pid_file = herd.folder / "w.log", herd.folder / "w.pid"
    arguments = ("-D", "-f", str(log), "--pidfile", str(pid_file), "-n", "w1")
    parent = start(herd, "w1", *arguments)
    assert parent.ended() == 0, parent.log
    # The file is there a moment before what is in it.
    pid = int(wait_for(lambda: pid_file.exists() and pid_file.read_text().strip(), "it runs"))
    detached.append(pid)
    wait_for(lambda: "w1" in known(herd), "it joins")
    assert "model_ready" in log.read_text()
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: ended(pid), "it ends")
    assert "draining" in log.read_text()

    parent = start(herd, "w2", *arguments, HERD_MODEL="not-the-herds")
    assert parent.ended() == 0, parent.log
    wait_for(lambda: "The herd refused this worker." in log.read_text(), "it says why")
    wait_for(lambda: not pid_file.exists(), "it ends")
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("HERD_WORKER_KEY", "no-such-key.json"), ("HERD_MODEL_PATH", "no-such-model.gguf")],
)
def test_what_is_missing_is_said_before_it_detaches(make_herd, setting, value):
    herd = make_herd(HERD_ENGINE="llama" if setting == "HERD_MODEL_PATH" else "stub")
    log = herd.folder / "w.log"
    child = start(herd, "w1", "-D", "-f", str(log), **{setting: value})
    assert child.ended() == EX_CONFIG, child.log
    (line,) = child.log.splitlines()
    assert value in line
    assert value in log.read_text()


def test_celery_multi_gives_its_names_and_its_log_files(herd, detached):
    folder = herd.folder
    files = [f"--pidfile={folder}/%n.pid", f"--logfile={folder}/%n.log"]
    command = ["multi", "start", "2", "-A", "workers", "-Q", "inference", *files]
    starting = herd.start("multi", command)
    assert starting.ended() == 0, starting.log
    names = {f"celery1@{HOST}", f"celery2@{HOST}"}
    wait_for(lambda: names <= set(known(herd)), "both join")
    detached += [int((folder / f"celery{n}.pid").read_text()) for n in (1, 2)]
    for number in (1, 2):
        assert "model_ready" in (folder / f"celery{number}.log").read_text()
    assert herd.submit().result(timeout=60).receipt.worker in names
    stopping = herd.start("stop", ["multi", "stopwait", "2", *files[:1]])
    assert stopping.ended() == 0, stopping.log
    assert all(ended(pid) for pid in detached)
    wait_for(lambda: {one.state for one in known(herd).values()} == {"gone"}, "both said farewell")

    started = herd.start("again", command, HERD_SLOTS="many")
    assert started.ended() == 0, "as Celery has it"
    assert started.log.count("FAILED") == 2
    assert "HERD_SLOTS" in started.log
    assert "HERD_SLOTS" in (folder / "celery1.log").read_text()
