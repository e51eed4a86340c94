"""The supervisor with real children: tiny programs that die as they are told."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from herder.host.supervisor import Patience, Program, Supervisor

LIMIT_S = 60
EAGER = Patience(young_s=3600, tries=3, wait_s=0, wait_most_s=0)
STAY = "import time\nprint('here', flush=True)\ntime.sleep(600)"
SLOW_TO_STOP = """
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(0.2)
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("here", flush=True)
time.sleep(600)
"""
DEAF = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('here', flush=True)\ntime.sleep(600)"
)


class Lines:
    """What was shown, and conditions to wait for."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def show(self, name: str, line: str) -> None:
        self.all.append((name, line))

    def count(self, name: str, line: str) -> int:
        return sum(shown == (name, line) for shown in self.all)

    def text(self) -> str:
        return "\n".join(f"{name}: {line}" for name, line in self.all)


def program(name: str, source: str, *args: str, **more: object) -> Program:
    return Program(name, [sys.executable, "-S", "-c", source, *args], os.environ, **more)  # type: ignore[arg-type]


def eventually(condition: Callable[[], object], what: str = "") -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, f"waited too long for {what or condition}"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """No process, or one that ended and that nobody asks after (a container without init)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def running() -> Iterator[Callable[[Supervisor], Supervisor]]:
    """Runs supervisors on threads, and ends them whatever happens."""
    begun: list[tuple[Supervisor, threading.Thread]] = []

    def run(supervisor: Supervisor) -> Supervisor:
        thread = threading.Thread(target=supervisor.run, daemon=True)
        thread.start()
        begun.append((supervisor, thread))
        return supervisor

    yield run
    for supervisor, thread in begun:
        supervisor.kill()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


Run = Callable[[Supervisor], Supervisor]


def test_what_dies_is_started_again_and_the_others_stay(lines: Lines, running: Run) -> None:
    stages = [[program("one", STAY), program("two", STAY)]]
    supervisor = running(Supervisor(stages, lines.show))
    eventually(lambda: lines.count("one", "here") == 1 and lines.count("two", "here") == 1)
    first, other = supervisor.pid("one"), supervisor.pid("two")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    eventually(lambda: lines.count("one", "here") == 2)
    assert supervisor.pid("one") not in (None, first)
    assert supervisor.pid("two") == other
    assert lines.count("herd", "one ended, signal SIGKILL") == 1
    supervisor.stop()
    assert supervisor.ended.wait(LIMIT_S)
    assert supervisor.exit_code == 0
    assert supervisor.failure is None


def test_what_ends_well_without_being_asked_is_started_again_too(
    lines: Lines, running: Run
) -> None:
    supervisor = running(
        Supervisor([[program("one", STAY.replace("600", "0.05"))]], lines.show, patience=EAGER)
    )
    assert supervisor.ended.wait(LIMIT_S)
    assert lines.count("one", "here") == 3


def test_what_dies_at_once_again_and_again_ends_everything(lines: Lines, running: Run) -> None:
    stages = [[program("good", STAY)], [program("bad", "print('no luck')\nraise SystemExit(3)")]]
    supervisor = running(Supervisor(stages, lines.show, patience=EAGER))
    assert supervisor.ended.wait(LIMIT_S)
    assert supervisor.exit_code == 1
    assert supervisor.failure == (
        "bad ended right after its start 3 times in a row, exit code 3. Its last output: no luck"
    )
    assert lines.count("bad", "no luck") == 3
    # Told, not asked for: it may have ended by the time that this thread would ask.
    (good,) = (line for name, line in lines.all if name == "herd" and "good started" in line)
    assert is_gone(int(good.split()[-1]))


def test_a_death_after_a_long_life_does_not_count(lines: Lines, running: Run) -> None:
    patience = Patience(young_s=0, tries=2, wait_s=0, wait_most_s=0)
    supervisor = running(
        Supervisor([[program("one", "print('here')")]], lines.show, patience=patience)
    )
    eventually(lambda: lines.count("one", "here") >= 5)
    assert supervisor.failure is None


def test_wrong_settings_are_not_tried_again(lines: Lines, running: Run) -> None:
    stages = [[program("one", "print('HERD_X is wrong.')\nraise SystemExit(78)")]]
    supervisor = running(Supervisor(stages, lines.show, patience=EAGER))
    assert supervisor.ended.wait(LIMIT_S)
    assert supervisor.exit_code == 78
    assert (
        supervisor.failure == "one cannot run with its settings. Its last output: HERD_X is wrong."
    )
    assert lines.count("one", "HERD_X is wrong.") == 1


def test_a_sibling_with_good_settings_goes_on(lines: Lines, running: Run) -> None:
    stages = [[program("one", "raise SystemExit(78)"), program("two", STAY)]]
    supervisor = running(Supervisor(stages, lines.show, patience=EAGER))
    eventually(lambda: supervisor.kept() == ["two"])
    eventually(lambda: lines.count("two", "here"))
    assert not supervisor.stopping
    assert supervisor.pid("one") is None
    assert lines.text().count("one started") == 1


def test_a_program_that_does_not_exist_is_said(lines: Lines, running: Run) -> None:
    missing = Program("one", ["/nowhere/to-be-found"], os.environ)
    supervisor = running(Supervisor([[missing]], lines.show, patience=EAGER))
    assert supervisor.ended.wait(LIMIT_S)
    assert supervisor.failure is not None
    assert "/nowhere/to-be-found cannot be started: No such file" in supervisor.failure


def test_a_stage_starts_when_the_one_before_is_ready(lines: Lines, running: Run) -> None:
    ready = threading.Event()
    first = program("one", STAY, ready=ready.is_set)
    supervisor = running(Supervisor([[first], [program("two", STAY)]], lines.show))
    eventually(lambda: lines.count("one", "here"))
    assert supervisor.pid("two") is None
    ready.set()
    eventually(lambda: lines.count("two", "here"))


def test_the_last_stage_stops_first_and_the_others_wait_for_it(
    tmp_path: Path, lines: Lines, running: Run
) -> None:
    ends = str(tmp_path / "ends")
    stages = [
        [program("redis", SLOW_TO_STOP, ends, "redis")],
        [program("herder", SLOW_TO_STOP, ends, "herder")],
        [program("w1", SLOW_TO_STOP, ends, "w"), program("w2", SLOW_TO_STOP, ends, "w")],
    ]
    supervisor = running(Supervisor(stages, lines.show))
    eventually(lambda: all(lines.count(n, "here") for n in ("redis", "herder", "w1", "w2")))
    supervisor.stop()
    supervisor.stop()  # asked twice is as good as once
    assert supervisor.ended.wait(LIMIT_S)
    assert Path(ends).read_text().split() == ["w", "w", "herder", "redis"]
    assert supervisor.exit_code == 0


def test_what_does_not_stop_in_time_is_killed(lines: Lines, running: Run) -> None:
    supervisor = running(Supervisor([[program("deaf", DEAF, stop_s=0)]], lines.show))
    eventually(lambda: lines.count("deaf", "here"))
    supervisor.stop()
    assert supervisor.ended.wait(LIMIT_S)
    assert lines.count("herd", "deaf did not stop in 0 s: killed") == 1


def test_kill_waits_for_nothing(tmp_path: Path, lines: Lines, running: Run) -> None:
    ends = tmp_path / "ends"
    stages = [[program("deaf", DEAF, stop_s=3600)], [program("w", SLOW_TO_STOP, str(ends), "w")]]
    supervisor = running(Supervisor(stages, lines.show))
    eventually(lambda: lines.count("deaf", "here") and lines.count("w", "here"))
    supervisor.stop()
    supervisor.kill()
    assert supervisor.ended.wait(LIMIT_S)
    assert supervisor.exit_code == 130


def test_a_reader_that_goes_away_stops_it_in_order(running: Run) -> None:
    def broken(name: str, line: str) -> None:
        raise BrokenPipeError

    supervisor = running(Supervisor([[program("one", STAY)]], broken))
    assert supervisor.ended.wait(LIMIT_S)
    assert supervisor.exit_code == 0


def test_the_grandchildren_go_when_a_child_is_killed(lines: Lines, running: Run) -> None:
    source = (
        "import subprocess, sys, time, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid,"
        " flush=True)\ntime.sleep(600)"
    )
    supervisor = running(Supervisor([[program("one", source, stop_s=0)]], lines.show))
    eventually(lambda: any(name == "one" for name, _ in lines.all))
    grandchild = int(next(line for name, line in lines.all if name == "one"))
    supervisor.stop()
    assert supervisor.ended.wait(LIMIT_S)
    eventually(lambda: is_gone(grandchild))
