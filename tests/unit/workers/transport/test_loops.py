"""Background loops: they log, count, back off, go on, and end when they are told to."""

from __future__ import annotations

import asyncio
import os
import queue
import subprocess
import sys
import threading

import pytest

from tests.support.wait import wait_for
from workers.transport.loops import Failures, Loop, TaskLoop

LONG_S = 3600.0
QUICK = (0.001, 0.01)


class Noted:
    """A log that is read back."""

    def __init__(self):
        self.lines = []

    def _note(self, level, event, ids):
        self.lines.append((level, event, ids))

    def info(self, event, **ids):
        self._note("info", event, ids)

    def warning(self, event, **ids):
        self._note("warning", event, ids)

    def error(self, event, **ids):
        self._note("error", event, ids)

    def events(self):
        return [(level, event) for level, event, _ in self.lines]


class Away(Exception):
    """Another server is out of reach."""


@pytest.fixture
def log():
    return Noted()


@pytest.fixture
def loops():
    """Loops that a test begins; they are stopped after it."""
    begun = []
    yield begun
    for one in begun:
        assert one.stop(60), f"{one.name} did not end"


@pytest.mark.parametrize(
    "raised", [RuntimeError("bug"), SystemExit(3), KeyboardInterrupt(), UnicodeDecodeError, Away]
)
def test_whatever_a_step_raises_is_counted_and_logged_and_the_loop_goes_on(log, loops, raised):
    taken = []

    def step():
        taken.append(1)
        if len(taken) == 1:
            raise raised if isinstance(raised, BaseException) else _made(raised)
        loop.pause(LONG_S)

    loop = Loop("work", step, retry_s=QUICK, ids={"herder": "h-1"}, log=log)
    loops.append(loop)
    loop.start()
    wait_for(lambda: len(taken) == 2, "the step after the failure")
    assert loop.alive
    assert loop.failures == 1
    level, event, ids = log.lines[0]
    assert (level, event) == ("error", "step_failed")
    assert ids["loop"] == "work"
    assert ids["herder"] == "h-1"
    assert ids["exc_info"].__traceback__ is not None


def _made(kind):
    return kind("utf-8", b"\xff", 0, 1, "no text") if kind is UnicodeDecodeError else kind()


def test_an_outage_is_one_line_without_a_trace_and_its_end_another(log):
    clock_s = 0.0
    kept = Failures("work", outages=(Away,), log=log, clock_s=lambda: clock_s)
    for _ in range(50):
        kept.failed(Away("no route"))
        clock_s += 1.0
    kept.worked()
    kept.worked()
    assert log.events() == [("warning", "out_of_reach"), ("info", "recovered")]
    assert "exc_info" not in log.lines[0][2]
    assert log.lines[0][2]["reason"] == "Away: no route"
    assert log.lines[1][2]["failures"] == 50
    assert (kept.total, kept.in_a_row) == (50, 0)


def test_an_outage_that_lasts_is_told_again_each_minute_and_another_at_once(log):
    clock_s = 0.0
    kept = Failures("work", outages=(Away,), log=log, clock_s=lambda: clock_s)
    for _ in range(121):
        kept.failed(Away())
        clock_s += 1.0
    assert log.events() == [("warning", "out_of_reach")] * 3
    kept.failed(ConnectionRefusedError("refused"))  # of OSError, which is always one
    assert len(log.lines) == 4


def test_back_off_doubles_up_to_its_bound_and_begins_anew():
    kept = Failures("work", retry_s=(0.1, 5.0), log=Noted())
    waits = [kept.failed(RuntimeError()) for _ in range(8)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    for _ in range(3000):
        assert kept.failed(RuntimeError()) == 5.0
    kept.worked()
    assert kept.failed(RuntimeError()) == pytest.approx(0.1)


def test_a_step_is_taken_again_after_its_period_or_when_woken(loops):
    taken = queue.SimpleQueue()
    loop = Loop("work", lambda: taken.put(1), every_s=LONG_S)
    loops.append(loop)
    loop.start()
    taken.get(timeout=60)
    for _ in range(3):
        loop.wake()
        taken.get(timeout=60)


def test_waking_cuts_no_back_off_short(log, loops):
    """Else whoever submits a hundred orders a second would have a broken step tried as often."""
    failed = threading.Event()

    def step():
        failed.set()
        raise RuntimeError

    loop = Loop("work", step, retry_s=(LONG_S, LONG_S), log=log)
    loops.append(loop)
    loop.start()
    assert failed.wait(60)
    wait_for(lambda: loop.failures == 1, "the failure")
    for _ in range(100):
        loop.wake()
    assert loop.failures == 1


def test_stop_cuts_a_back_off_a_pause_and_a_period_short():
    def fail():
        raise RuntimeError

    loops = [
        Loop("fails", fail, retry_s=(LONG_S, LONG_S), log=Noted()),
        Loop("pauses", lambda: waits.pause(LONG_S)),
        Loop("rests", lambda: None, every_s=LONG_S),
    ]
    waits = loops[1]
    for loop in loops:
        loop.start()
    wait_for(lambda: loops[0].failures == 1, "the failure")
    for loop in loops:
        assert loop.stop(60)
        assert not loop.alive
        assert loop.stopping


def test_stop_ends_a_step_that_waits_on_a_queue():
    waiting, taken = queue.SimpleQueue(), []
    loop = Loop("work", lambda: taken.append(waiting.get()), unblock=lambda: waiting.put("end"))
    loop.start()
    waiting.put("one")
    wait_for(lambda: taken == ["one"], "the step")
    assert loop.stop(60)
    assert taken == ["one", "end"]


def test_a_step_that_stops_its_own_loop_does_not_wait_for_itself():
    loop = Loop("work", lambda: loop.stop(None))
    loop.start()
    wait_for(lambda: not loop.alive, "the thread's end")


def test_stop_says_when_a_step_does_not_end(loops):
    stuck, inside = threading.Event(), threading.Event()

    def step():
        inside.set()
        stuck.wait(60)

    loop = Loop("work", step)
    loops.append(loop)
    loop.start()
    assert inside.wait(60)
    assert not loop.stop(0)
    assert loop.alive
    stuck.set()


def test_the_last_call_comes_on_the_thread_after_the_last_step(log):
    order = []

    def last():
        order.append(threading.current_thread().name)
        raise RuntimeError("cannot close")

    loop = Loop("work", lambda: order.append("step"), every_s=LONG_S, last=last, log=log)
    loop.start()
    wait_for(lambda: order == ["step"], "the step")
    assert loop.stop(60)
    assert order == ["step", "work"]
    assert log.events() == [("error", "step_failed")]


def test_a_loop_that_leaves_can_be_begun_again_before_its_thread_has_ended():
    lock, left, go_on, threads = threading.Lock(), threading.Event(), threading.Event(), []

    def step():
        threads.append(threading.get_ident())
        if len(threads) == 1:
            with lock:
                loop.leave()
            left.set()
            go_on.wait(60)  # as slow as a thread may be to end
        else:
            loop.pause(LONG_S)

    loop = Loop("work", step)
    loop.start()
    assert left.wait(60)
    with lock:
        loop.start()
    wait_for(lambda: len(threads) == 2, "the second thread")
    go_on.set()
    assert threads[0] != threads[1]
    assert loop.stop(60)
    assert len(threads) == 2


def test_a_start_too_many_begins_no_second_thread(loops):
    taken = []
    loop = Loop("work", lambda: taken.append(threading.get_ident()), every_s=LONG_S)
    loops.append(loop)
    for _ in range(5):
        loop.start()
    wait_for(lambda: taken, "a step")
    assert len(taken) == 1


def test_who_is_told_of_failures_may_fail_too(log, loops):
    told = []

    def tell(error):
        told.append(error)
        raise SystemExit

    def step():
        if len(told) < 2:
            raise RuntimeError

    loop = Loop("work", step, every_s=LONG_S, retry_s=QUICK, on_failure=tell, log=log)
    loops.append(loop)
    loop.start()
    wait_for(lambda: ("info", "recovered") in log.events(), "the step after two failures")
    assert len(told) == 2
    assert loop.alive


def test_a_log_that_cannot_be_written_ends_no_loop(loops, caplog):
    class Broken(Noted):
        def error(self, event, **ids):  # noqa: ARG002
            raise ValueError("I/O operation on closed file")

    taken = []

    def step():
        taken.append(1)
        if len(taken) == 1:
            raise RuntimeError("bug")
        loop.pause(LONG_S)

    loop = Loop("work", step, retry_s=QUICK, log=Broken())
    loops.append(loop)
    loop.start()
    wait_for(lambda: len(taken) == 2, "the step after the failure")
    assert "step_failed loop=work" in caplog.text


FORKS = """
import os, sys, time
from workers.transport.loops import Loop

taken = []

def step():
    taken.append(os.getpid())

loop = Loop("work", step, every_s=3600.0)
loop.start()
while not taken:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    assert not loop.alive, "a thread lives on in no child"
    assert loop.stop(0), "there is nothing to wait for"
    loop.start()
    while os.getpid() not in taken:
        time.sleep(0.01)
    assert loop.stop(60)
    os._exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7
assert loop.alive
assert loop.stop(60)
"""

FORKS_IN_A_STEP = """
import os, sys, threading
from workers.transport.loops import Loop

parent = os.getpid()
status = []
done = threading.Event()

def step():
    if os.getpid() != parent:
        os._exit(8)  # the child went on with the loop
    child = os.fork()
    if child == 0:
        return
    status.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    done.set()
    loop.pause(3600.0)

loop = Loop("work", step)
loop.start()
assert done.wait(60)
assert loop.stop(60)
assert status == [0], status
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("program", [FORKS, FORKS_IN_A_STEP], ids=["beside", "within"])
def test_a_forked_child_takes_no_steps_of_its_parent(program):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr


WITHOUT_STRUCTLOG = """
import logging, sys, threading
sys.modules["structlog"] = None
from workers.transport.loops import Loop

logging.basicConfig(format="%(levelname)s %(message)s")
failed = threading.Event()

def step():
    if not failed.is_set():
        failed.set()
        raise RuntimeError("bug")
    loop.pause(3600.0)

loop = Loop("work", step, retry_s=(0.001, 0.001), ids={"order": "o-1"})
loop.start()
assert failed.wait(60)
assert loop.stop(60)
"""


def test_loops_log_where_structlog_is_not_installed():
    """The client over HTTP is installed without it, and calls programs back from a loop."""
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_STRUCTLOG], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert "ERROR step_failed loop=work order=o-1" in ran.stderr
    assert "RuntimeError: bug" in ran.stderr


# Tasks


def test_a_task_outlives_what_its_step_raises_and_is_cancelled_by_stop(log):
    async def main():
        taken, gone_on = [], asyncio.Event()

        async def step():
            taken.append(1)
            if len(taken) == 1:
                raise RuntimeError("bug")
            if len(taken) == 2:
                raise Away
            if len(taken) == 3:
                # Something that the step waited for was cancelled, and not the step.
                inner = asyncio.ensure_future(asyncio.sleep(LONG_S))
                inner.cancel()
                await inner
            gone_on.set()

        loop = TaskLoop("share", step, every_s=0.001, outages=(Away,), retry_s=QUICK, log=log)
        loop.start()
        await asyncio.wait_for(gone_on.wait(), 60)
        assert loop.alive
        assert loop.failures == 3
        await loop.stop()
        assert not loop.alive

    asyncio.run(main())
    assert log.events()[:4] == [
        ("error", "step_failed"),
        ("warning", "out_of_reach"),
        ("error", "step_failed"),
        ("info", "recovered"),
    ]


def test_stopping_a_task_ends_the_step_at_hand_and_a_back_off():
    async def main():
        inside = asyncio.Event()

        async def hang():
            inside.set()
            await asyncio.sleep(LONG_S)

        async def fail():
            raise RuntimeError

        hangs = TaskLoop("hangs", hang, every_s=0.001)
        fails = TaskLoop("fails", fail, every_s=0.001, retry_s=(LONG_S, LONG_S), log=Noted())
        hangs.start()
        fails.start()
        await asyncio.wait_for(inside.wait(), 60)
        while not fails.failures:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(hangs.stop(), 60)
        await asyncio.wait_for(fails.stop(), 60)
        await fails.stop()
        assert not hangs.alive
        assert not fails.alive

    asyncio.run(main())


def test_waking_a_task_cuts_its_period_short():
    async def main():
        taken = asyncio.Queue()

        async def step():
            taken.put_nowait(1)

        loop = TaskLoop("trim", step, every_s=LONG_S)
        loop.start()
        for _ in range(3):
            loop.wake()
            await asyncio.wait_for(taken.get(), 60)
        await loop.stop()

    asyncio.run(main())


ENDS = """
import asyncio, logging, sys
sys.modules["structlog"] = None
from workers.transport.loops import TaskLoop

logging.basicConfig(format="%(levelname)s %(message)s")

async def step():
    raise SystemExit(5)

async def main():
    loop = TaskLoop("share", step, every_s=0.001)
    loop.start()
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_a_task_that_ends_the_process_is_logged():
    # Not in this process: CPython 3.11 miscounts its depth after it.
    ran = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 5
    assert "ERROR step_failed loop=share" in ran.stderr


def test_the_first_step_may_come_later_and_a_wake_or_a_stop_cuts_that_short():
    steps = []
    loop = Loop("later", lambda: steps.append(1), every_s=3600, first_s=3600)
    loop.start()
    assert not steps
    wait_for(lambda: loop.wake() or steps, "it was woken")
    assert loop.stop(60)
    late = Loop("later", lambda: steps.append(2), every_s=3600, first_s=3600)
    late.start()
    assert late.stop(60)
    assert 2 not in steps


def test_a_task_whose_step_swallows_its_cancellation_is_stopped_all_the_same():
    async def run():
        begun = asyncio.Event()
        swallowed = []

        async def step():
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(True)

        loop = TaskLoop("stubborn", step, every_s=0)
        loop.start()
        await begun.wait()
        await asyncio.wait_for(loop.stop(), 30)
        assert swallowed
        assert not loop.alive

    asyncio.run(run())
