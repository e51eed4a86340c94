"""A failure that lasts is a line in ten seconds, whoever notices it: how often, and what to do."""

from __future__ import annotations

import io
import logging

import pytest
import redis
import structlog

from herder.errors import SetupError
from workers.transport.event_log import EventLog
from workers.transport.logs import configure_logging
from workers.transport.loops import Failures
from workers.transport.reasons import reason_of
from workers.transport.repeats import MAX_KINDS, REPEAT_S, RepeatFilter


class Log:
    """What a process of the herd writes, by a clock of the test's."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.written = io.StringIO()

    @property
    def lines(self) -> list[str]:
        return self.written.getvalue().splitlines()


@pytest.fixture
def log() -> Log:
    root = logging.getLogger()
    made = Log()
    configure_logging("INFO")
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(made.written)
    (repeats,) = handler.filters
    assert isinstance(repeats, RepeatFilter)
    repeats._clock_s = lambda: made.now_s
    return made


def test_many_calls_that_fail_alike_write_one_line(log):
    ours = structlog.get_logger("herder.gateway.outages")
    for call in ("one", "two", "three"):
        with structlog.contextvars.bound_contextvars(request_id=call):
            ours.warning("call_failed", reason="no database")
    assert len(log.lines) == 1
    log.now_s = REPEAT_S + 1
    ours.warning("call_failed", reason="no database")
    assert len(log.lines) == 2
    assert "2" in log.lines[1]


def test_many_loops_that_miss_one_thing_write_one_line(log):
    ours = structlog.get_logger("herder.service.loop")
    loops = [Failures(f"duty{n}", outages=(SetupError,), log=ours) for n in range(12)]
    for second in range(25):
        log.now_s = float(second)
        for loop in loops:
            loop.failed(SetupError("The database cannot be used."))
    assert 1 <= len(log.lines) <= 3
    assert "out_of_reach" in log.lines[0]
    assert "The database cannot be used." in log.lines[0]


def _fail() -> None:
    raise RuntimeError("a defect")


def test_a_defect_that_repeats_shows_its_trace_once_in_ten_seconds(log):
    loop = Failures("work", log=structlog.get_logger("herder.service.loop"))
    for second in range(25):
        log.now_s = float(second)
        with pytest.raises(RuntimeError) as raised:
            _fail()
        loop.failed(raised.value)
    assert len([line for line in log.lines if line.startswith("Traceback")]) == 3
    assert "repeated=9" in log.written.getvalue()


def test_both_kinds_of_logger_are_counted(log):
    ours, plain = structlog.get_logger("herder.x"), EventLog("herder.y")
    for _ in range(5):
        ours.warning("first_event", reason="gone", loop="a")
        plain.warning("second_event", reason="gone", loop="b")
    log.now_s = REPEAT_S
    ours.warning("first_event", reason="gone", loop="c")
    plain.warning("second_event", reason="gone", loop="d")
    assert len(log.lines) == 4
    assert "repeated=4" in log.lines[2]
    assert "repeated=4" in log.lines[3]


def test_what_differs_in_more_than_who_noticed_it_is_written_each_time(log):
    ours = structlog.get_logger("herder.x")
    for number in range(5):
        ours.error("order_set_aside", order=f"o{number}", reason="refused")
        ours.info("worker_joined", worker="w")
    assert len(log.lines) == 10


def test_numbers_in_others_lines_make_no_other_kind(log):
    celery = logging.getLogger("celery.worker.consumer")
    for number in range(5):
        celery.error("Cannot connect. Trying again in %s.00 seconds... (%s/100)", number, number)
    assert len(log.lines) == 1


def test_kinds_that_are_remembered_are_bounded():
    repeats = RepeatFilter(lambda: 0.0)
    for number in range(MAX_KINDS + 10):
        record = logging.LogRecord("herder", 30, "", 0, f"event n={number}", (), None)
        assert repeats.filter(record)
    assert len(repeats._kinds) == MAX_KINDS


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
            "maxmemory",
        ),
        (redis.ConnectionError("max number of clients reached"), "maxclients"),
        (redis.ReadOnlyError("READONLY You can't write against a read only replica."), "master"),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "make room"),
        (SetupError("One sentence."), "One sentence."),
        (OSError(), "OSError"),
    ],
)
def test_a_reason_says_what_to_do(error, said):
    reason = reason_of(error)
    assert said in reason
    assert "\n" not in reason


def test_what_redis_was_asked_is_in_no_reason():
    words = "Command # 1 (XADD text a-prompt) of pipeline caused error: OOM command not allowed"
    assert "a-prompt" not in reason_of(redis.ResponseError(words))
    words = "Command # 1 (XADD text a-prompt) of pipeline caused error: something else"
    assert reason_of(redis.ResponseError(words)) == "ResponseError: something else"
