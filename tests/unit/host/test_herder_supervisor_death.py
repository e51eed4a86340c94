"""What becomes of the children when the supervisor's own process is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_S = 60

SUPERVISOR = """
import os, sys
from herder.host.supervisor import Program, Supervisor
from herder.host.up import stop_on_signals

STAY = "import os, time\\nprint('pid', os.getpid(), flush=True)\\ntime.sleep(600)"
DEAF = "import signal\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\n" + STAY
source = DEAF if "deaf" in sys.argv else STAY
stages = [[Program(name, [sys.executable, "-S", "-c", source], os.environ, stop_s=600)]
          for name in ("one", "two")]
supervisor = Supervisor(stages, lambda name, line: print(line, flush=True))
stop_on_signals(supervisor)
sys.exit(supervisor.run())
"""


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Started:
    """A supervisor in a process of its own, with its two children up."""

    def __init__(self, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, *args], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.children: list[int] = []
        while len(self.children) < 2:
            line = self.process.stdout.readline()
            assert line, "it ended early"
            if line.startswith("pid "):
                self.children.append(int(line.split()[1]))
        assert not any(map(is_gone, self.children))

    def read_until(self, part: str) -> None:
        assert self.process.stdout is not None
        while part not in self.process.stdout.readline():
            assert self.process.poll() is None

    def assert_children_go(self) -> None:
        until = time.monotonic() + LIMIT_S
        while not all(map(is_gone, self.children)):
            assert time.monotonic() < until, "orphans are left"
            time.sleep(0.01)


@pytest.fixture
def started() -> Iterator[list[Started]]:
    each: list[Started] = []
    yield each
    for one in each:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_all_in_order(started: list[Started], number: signal.Signals) -> None:
    started.append(one := Started())
    one.process.send_signal(number)
    output, _ = one.process.communicate(timeout=LIMIT_S)
    assert one.process.returncode == 0
    assert output.index("two ended") < output.index("one ended")
    assert all(map(is_gone, one.children))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked for it, on Linux only")
def test_nothing_outlives_a_supervisor_that_is_killed(started: list[Started]) -> None:
    started.append(one := Started("deaf"))
    one.process.kill()
    one.assert_children_go()


def test_a_second_ctrl_c_waits_for_nobody(started: list[Started]) -> None:
    started.append(one := Started("deaf"))
    one.process.send_signal(signal.SIGINT)
    one.read_until("stopping")
    one.process.send_signal(signal.SIGINT)
    one.process.communicate(timeout=LIMIT_S)
    assert one.process.returncode == 130
    assert all(map(is_gone, one.children))


def test_signals_at_any_moment_do_not_make_it_deaf(started: list[Started]) -> None:
    # Each interrupts a wait of the loop, some of them at its deadline.
    started.append(one := Started("deaf"))
    one.process.send_signal(signal.SIGTERM)
    one.read_until("stopping")
    for _ in range(1000):
        one.process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    one.process.send_signal(signal.SIGINT)
    one.process.communicate(timeout=LIMIT_S)
    assert one.process.returncode == 130
