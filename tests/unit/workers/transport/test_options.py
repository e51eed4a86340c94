"""What Celery's options mean in a herd, read as Celery itself would read them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from celery.bin.celery import celery

from workers.settings import WorkerSettings
from workers.transport.command_line import CommandLine, read_command_line
from workers.transport.launch import Launch
from workers.transport.options import HERDER, WORKER, Role, refusal

BROKER = "redis://:secret@127.0.0.1:6379/0"
HOST = socket.gethostname()


def typed(arguments: str, role: Role = WORKER, before: str = "", **environment: str) -> CommandLine:
    line = read_command_line(
        [*before.split(), "-A", role.app, "worker", *arguments.split()], environment
    )
    assert line is not None
    return line


def refused(line: CommandLine, role: Role = WORKER, **environment: str) -> str | None:
    return refusal(line, environment, role, BROKER)


BOTH = {
    "--autoscale 8,2": "--autoscale",
    "--autoscale=8,2": "--autoscale",
    "-P processes": "-P processes",
    "-P prefork": "-P prefork",  # which Celery itself cannot tell from its default
    "-P solo": "-P solo",
    "--pool=solo": "--pool solo",
    "-P gevent": "-P gevent",
    "-P eventlet": "-P eventlet",
    "-P custom": "-P custom",
    "-Q wrong": "-Q wrong",
    "-Q inference,herder": "-Q inference,herder",
    "-X inference": "-X",
    "-X other": "-X",
    "-c auto": "-c auto",
    "-c 257": "-c 257",
    "-c -1": "-c -1",
    "--concurrency=many": "--concurrency many",
    "--max-tasks-per-child 3": "--max-tasks-per-child",
    "--max-memory-per-child=100000": "--max-memory-per-child",
    "--pool-start-method spawn": "--pool-start-method",
    "--time-limit 10": "--time-limit",
    "--soft-time-limit=10": "--soft-time-limit",
    "-B": "-B",
    "--beat": "--beat",
    "-s schedule": "-s",
    "--scheduler some.thing": "--scheduler",
    "--purge": "--purge",
    "--discard": "--discard",
    "-S state": "-S",
    "-I some.module": "-I",
    "--prefetch-multiplier 4": "--prefetch-multiplier 4",
    "-n a/b": "-n a/b",
    "-n x%p": "-n x%p",
}


@pytest.mark.parametrize("role", [WORKER, HERDER], ids=lambda role: role.app)
@pytest.mark.parametrize("arguments", BOTH)
def test_what_cannot_work_is_refused_by_one_line_that_says_what_to_type(arguments, role):
    sentence = refused(typed(arguments, role), role)
    assert sentence is not None
    assert sentence.startswith(f"The option {BOTH[arguments]} cannot be used in a herd: ")
    assert f"celery -A {role.app} worker -Q {role.queue}" in sentence
    assert "\n" not in sentence
    assert "{" not in sentence


@pytest.mark.parametrize("role", [WORKER, HERDER], ids=lambda role: role.app)
@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "-Q QUEUE",
        "-Q QUEUE,",
        "-c 1",
        "-c 0",
        "-c4",
        "-P threads",
        "-n gpu-1",
        "-n w1@%h",
        "-l DEBUG",
        "-f worker.log",
        "-D --pidfile w.pid -f w.log",
        "--uid 1000 --gid 1000 --umask 077 --executable python3",
        "-O fair",
        "-E",
        "--without-gossip --without-mingle --without-heartbeat --heartbeat-interval 5",
        "--prefetch-multiplier 1 --disable-prefetch",
    ],
)
def test_what_works_is_taken(arguments, role):
    assert refused(typed(arguments.replace("QUEUE", role.queue), role), role) is None


def test_what_stands_before_the_command_is_refused_unless_it_says_the_same():
    for before in ("-b redis://elsewhere", "--broker=redis://elsewhere"):
        sentence = refused(typed("", before=before))
        assert sentence is not None
        assert "HERD_BROKER_URL" in sentence
        assert "elsewhere" not in sentence, "it may hold a password"
    assert refused(typed("", before=f"-b {BROKER}")) is None
    for before in ("--result-backend redis://x", "--config some.module", "--loader default"):
        sentence = refused(typed("", before=before))
        assert sentence is not None
        assert before.split()[0] in sentence
    assert refused(typed("", before="-C -q --skip-checks")) is None


@pytest.mark.parametrize(
    "variable",
    [
        "CELERY_BROKER_URL",
        "CELERY_BROKER_READ_URL",
        "CELERY_BROKER_WRITE_URL",
        "BROKER_URL",
        "CELERY_BROKER",
        "CELERY_RESULT_BACKEND",
        "RESULT_BACKEND",
        "CELERY_LOADER",
        "CELERY_CONFIG_MODULE",
        "CONFIG_MODULE",
        "CELERY_WORKER_POOL",
        "CELERY_WORKER_QUEUES",
        "CELERY_WORKER_AUTOSCALE",
        "CELERY_WORKER_BEAT",
    ],
)
def test_variables_that_celery_lets_win_are_refused_by_name(variable):
    environment = {variable: "redis://:secret@elsewhere/3"}
    sentence = refused(typed("", **environment), **environment)
    assert sentence is not None
    assert sentence.startswith(f"The variable {variable} cannot be used in a herd: ")
    assert "HERD_" in sentence or "backend" in sentence or "WORKER" in variable
    assert "secret" not in sentence


def test_variables_that_change_nothing_are_let_be():
    for environment in ({"CELERY_BROKER_URL": BROKER}, {"CELERY_WORKER_BEAT": "0"}, {"APP": "x"}):
        assert refused(typed("", **environment), **environment) is None


def test_settings_on_the_command_line_are_refused():
    sentence = refused(typed("-Q inference worker.prefetch_multiplier=4"))
    assert sentence is not None
    assert "'worker.prefetch_multiplier=4'" in sentence
    assert "HERD_*" in sentence


@pytest.mark.parametrize("command", ["status", "inspect", "control"])
def test_remote_control_says_that_it_is_off_and_what_shows_the_workers(command):
    for role in (WORKER, HERDER):
        line = read_command_line(["-A", role.app, command], {})
        assert line is not None
        sentence = refused(line, role)
        assert sentence is not None
        assert f"`celery {command}`" in sentence
        assert f"`{role.show}`" in sentence


def test_other_commands_go_on_and_what_celery_refuses_itself_is_left_to_it():
    for arguments in ("flower --conf=x", "events --dump"):
        line = read_command_line(["-A", "workers", *arguments.split()], {})
        assert line is not None
        assert refused(line, CELERY_BROKER_URL="redis://elsewhere") is None
    line = read_command_line(["-A", "workers", "flower"], {"BROKER_URL": "redis://elsewhere"})
    assert line is not None
    assert refused(line) is None, "it is somebody else's, and nothing here goes by it"
    line = read_command_line(["-A", "workers", "report"], {})
    assert line is not None
    assert "CELERY_BROKER_URL" in str(refused(line, CELERY_BROKER_URL="redis://elsewhere"))
    for arguments in (["worker", "--nonsense"], ["nonsense"], [], ["worker", "-c"]):
        assert read_command_line(["-A", "workers", *arguments], {}) is None
    for command in ("beat", "purge"):
        line = read_command_line(["-A", "workers", command], {})
        assert line is not None
        assert f"`celery {command}`" in str(refused(line))


def test_the_readme_has_a_line_for_every_option_of_celery():
    text = (Path(__file__).parents[4] / "README.md").read_text()
    _, rest = text.split("### Celery's options")
    table = rest.partition("### Over HTTP")[0]
    for option in (*celery.params, *celery.commands["worker"].params):
        if option.name != "app":
            assert any(f"`{form}" in table for form in option.opts), option.opts


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("", ""),
        ("-n gpu-1", "gpu-1"),
        ("-n gpu_1.a", "gpu_1.a"),
        ("-n w1@%h", f"w1@{HOST}"),
        ("-n w-%h", f"w-{HOST}"),
        ("--hostname=celery2@box", "celery2@box"),
    ],
)
def test_n_names_it(arguments, name):
    assert Launch(WORKER, typed(arguments)).name == name


def test_what_is_typed_goes_before_what_is_set():
    settings = WorkerSettings(slots=4, worker_name="set")
    launch = Launch(WORKER, typed("-c 1 -n typed -l debug"))
    called = settings.called(launch.name, slots=launch.threads)
    assert (called.slots, called.name, launch.log_level) == (1, "typed", "DEBUG")
    launch = Launch(WORKER, typed("-c 0 -l fatal"))
    called = settings.called(launch.name, slots=launch.threads)
    assert (called.slots, called.name, launch.log_level) == (4, "set", "CRITICAL")
    nothing = Launch(WORKER, None)
    assert (nothing.name, nothing.threads, nothing.log_level, nothing.log_file) == (
        "",
        None,
        None,
        "",
    )


@pytest.mark.parametrize("slots", [1, 16, 256])
def test_c_leaves_each_order_its_share_of_the_cache(slots):
    """A worker with a longer context that joined first had the others refused."""
    settings = WorkerSettings().called(slots=slots)
    assert settings.cells // settings.slots == 32_768 // 16
    assert WorkerSettings(kv_layout="unified").called(slots=slots).cells == 32_768


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        ("-f all.log", "all.log"),
        ("-n w1@box --logfile=%n%I.log", "w1.log"),
        ("-n plain -f %n.log", "celery.log"),  # as Celery names its pid file
        ("-f %h.log", f"{HOST}.log"),
        ("", ""),
    ],
)
def test_the_log_file_is_named_as_celery_names_it(arguments, file):
    assert Launch(WORKER, typed(arguments)).log_file == file
