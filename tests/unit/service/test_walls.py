"""Walls: what fails in a herder, a duty, a loop or a batch, and all the others go on."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from redis import ConnectionError as RedisAway

from herder.errors import HerdUnavailable
from herder.gateway.telemetry.metrics import GatewayMetrics
from herder.gateway.telemetry.monitor import Monitor
from herder.service.upkeep import make_upkeep
from herder.store import duties as duty_sql
from tests.support.wait import wait_for
from workers.wire import BEATS_STREAM, AttemptRef, Claim, seal

NAMES = [
    "mark",
    "workers",
    "lapse",
    "expire",
    "outbox",
    "refill",
    "counts",
    "rank",
    "grants",
    "survey",
    "forget_deliveries",
    "forget_texts",
]


def test_these_are_all_duties(house):
    """A new one is added here, and with that to each test of this file."""
    assert sorted(duty.name for duty in house.new_service().duties) == sorted(NAMES)


def plant(service, name, step):
    """Have a duty do this instead."""
    (runner,) = (one for one in service._runners if one.duty.name == name)
    runner.duty = replace(runner.duty, step=step)


def record(service, taken, names):
    """Note which of these duties are done, and do them."""
    for name in names:
        (runner,) = (one for one in service._runners if one.duty.name == name)

        def step(limit, name=name, real=runner.duty.step):
            taken.append(name)
            return real(limit)

        plant(service, name, step)


def scraped(house):
    """The samples that /metrics shows of duties: (name, duty) and value."""
    monitor = Monitor(house.database, house.accounts.totals, clock_us=house.clock)
    metrics = GatewayMetrics(monitor)
    metrics.refresh()
    from prometheus_client import generate_latest

    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name, sample.labels["duty"]): sample.value
        for family in families
        for sample in family.samples
        if "duty" in sample.labels
    }


# A fault in each duty


@pytest.mark.parametrize("raised", [ZeroDivisionError, HerdUnavailable])
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_in_one_duty_leaves_the_others_alone_and_is_counted(house, name, raised):
    service, taken, failed = house.new_service(), [], []
    others = [one for one in NAMES if one != name]
    record(service, taken, others)
    real = service._runners[NAMES.index("counts")].duty.step

    def fail(_limit):
        failed.append(1)
        raise raised("planted") if raised is HerdUnavailable else raised

    plant(service, name, fail)
    for _ in range(3):
        service.tick()
        house.now_us += 600_000_000
    assert sorted(set(taken)) == sorted(others), "each was done"
    assert all(taken.count(one) >= 3 for one in others), "and again"
    assert len(failed) == 3
    real(1)  # that which counts may be the one that failed
    assert scraped(house)["llama_herder_duty_failures_total", name] == 3
    assert all(scraped(house)["llama_herder_duty_failures_total", one] == 0 for one in others)


@pytest.mark.parametrize("name", NAMES)
def test_a_duty_that_hangs_or_fails_on_its_thread_holds_up_no_other(house, name):
    streams = Mock()
    streams.read_beats.side_effect = lambda *_, **__: []
    service, taken, hanging = house.new_service(streams), [], threading.Event()
    others = [one for one in NAMES if one != name]
    record(service, taken, others)
    calls = []

    def hang(_limit):
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit("planted")
        hanging.wait(60)
        return False

    plant(service, name, hang)
    service.start()
    try:
        quick = {"mark", "workers", "lapse", "expire", "outbox", "refill", "grants"} - {name}
        wait_for(lambda: len(calls) == 2, "the step after the failure")
        seen = len(taken)
        wait_for(lambda: quick <= set(taken[seen:]), "each other duty, while one hangs")
        wait_for(lambda: set(others) <= set(taken), "each at least once")
    finally:
        hanging.set()
        service.stop()


# What is shown


def test_seconds_and_failures_are_shown_by_duty(house):
    service = house.new_service()

    def slow(_limit):
        house.now_us += 2_500_000
        return False

    plant(service, "lapse", slow)
    service.tick()
    shown = scraped(house)
    assert shown["llama_herder_duty_seconds_sum", "lapse"] == 2.5
    assert shown["llama_herder_duty_seconds_count", "lapse"] == 1
    assert shown["llama_herder_duty_failures_total", "work"] == 0
    assert shown["llama_herder_duty_overruns_total", "lapse"] == 0


def test_what_failed_while_the_database_was_away_is_counted_later(house, monkeypatch):
    service = house.new_service()

    def away(*_):
        raise HerdUnavailable("away")

    with monkeypatch.context() as patched:
        for call in ("transact", "read", "write"):
            patched.setattr(house.database, call, away)
        for _ in range(5):
            service.tick()
            house.now_us += 10_000_000
    service.tick()
    assert scraped(house)["llama_herder_duty_failures_total", "mark"] == 5
    assert scraped(house)["llama_herder_duty_failures_total", "counts"] == 5


# Dispatch


@pytest.mark.parametrize("raised", [ZeroDivisionError(), HerdUnavailable("away"), OSError()])
def test_a_dispatch_that_raises_keeps_nobody_from_hearing_of_what_was_settled(house, raised):
    worker = house.worker()
    order = house.submit()
    job = house.dispatched()
    streams = Mock()
    service = house.new_service(streams)
    service._dispatcher = Mock()
    service._dispatcher.dispatch.side_effect = raised
    service.answer([worker.answer(job)])
    assert service.work(0)
    assert house.order(order.id).state == "completed"
    assert streams.announce_ended.call_args.args == ([order.id],)
    assert streams.add_controls.called, "its worker was told that it is settled"
    assert service.tally.take()["dispatch"].failures == 1


def test_a_model_whose_dispatch_fails_rests_and_the_other_goes_out(house):
    service, tried = house.new_service(), []

    def dispatch(model, _done):
        tried.append(model)
        if model == "bad":
            raise ZeroDivisionError
        return False

    service._dispatcher = SimpleNamespace(dispatch=dispatch)
    for _ in range(10):
        service.wake(["bad", "good"])
        service.work(0)
    assert tried.count("bad") == 1, "however often it is woken"
    assert tried.count("good") == 10
    house.now_us += 1_000_000
    service.wake(["bad"])
    service.work(0)
    assert tried.count("bad") == 2


# Beats


def tokens(house, *workers, poison=None):
    """The beats of some workers, and for one of them a claim that cannot be taken in."""
    found = []
    for worker in workers:
        body = worker.envelope(Claim(held=(AttemptRef(order="o", attempt=1, nonce="n" * 20),))).body
        found.append(seal(body, worker.key, sender=worker.instance, audience=BEATS_STREAM))
    return [(house.now_us, token) for token in found]


def test_one_beat_that_cannot_be_taken_in_is_dropped_alone(house, monkeypatch):
    workers = [house.worker() for _ in range(9)]
    heard = []
    real = house.herd._hear_worker

    def poisoned(connection, batch, envelope, into):
        if envelope.sender == workers[4].instance:
            raise ZeroDivisionError(envelope.body.held[0].nonce)
        heard.append(envelope.sender)
        return real(connection, batch, envelope, into)

    monkeypatch.setattr(house.herd, "_hear_worker", poisoned)
    monkeypatch.setattr(house.herd, "_all_settled", lambda _: False)
    streams = Mock()
    streams.read_beats.return_value = tokens(house, *workers)
    service = house.new_service(streams)
    with structlog.testing.capture_logs() as logs:
        assert service.listen(0)
    good = [one.instance for one in workers if one is not workers[4]]
    # Those that were heard in a transaction that was undone are heard once more.
    assert set(heard) == set(good)
    stopped = [one for one, _ in streams.add_controls.call_args.args[0]]
    assert stopped == good, "each is told once, in the order in which they came"
    (dropped,) = (line for line in logs if line["event"] == "beat_dropped")
    assert dropped["instance"] == workers[4].instance
    assert "n" * 20 not in str(logs)
    assert service.tally.take()["beats"].failures == 1


def test_a_beat_that_breaks_its_reader_is_left_out(house, monkeypatch):
    import herder.service.beats as beats

    worker, real = house.worker(), beats.unseal

    def broken(token, *rest, **more):
        if token == "poison":
            raise MemoryError(token)
        return real(token, *rest, **more)

    monkeypatch.setattr(beats, "unseal", broken)
    streams = Mock()
    streams.read_beats.return_value = [(1, "poison"), *tokens(house, worker)]
    service = house.new_service(streams)
    with structlog.testing.capture_logs() as logs:
        assert service.listen(0)
    assert streams.add_controls.called, "the other one was heard"
    assert [line["reason"] for line in logs if line["event"] == "beat_unreadable"] == [
        "MemoryError"
    ]
    assert "poison" not in str(logs)


def test_what_was_heard_before_an_outage_is_acted_on(house, monkeypatch):
    workers = [house.worker() for _ in range(4)]
    real, calls = house.herd.hear, []

    def hear(envelopes):
        calls.append(len(envelopes))
        if len(envelopes) == 4:
            raise ZeroDivisionError
        if len(calls) == 3:
            raise HerdUnavailable("away")
        return real(envelopes)

    monkeypatch.setattr(house.herd, "hear", hear)
    streams = Mock()
    streams.read_beats.return_value = tokens(house, *workers)
    with pytest.raises(HerdUnavailable):
        house.new_service(streams).listen(0)
    stopped = [one for one, _ in streams.add_controls.call_args.args[0]]
    assert stopped == [one.instance for one in workers[:2]]


# The other loops of a herder


@pytest.mark.parametrize("name", ["work", "beats"])
def test_a_loop_of_a_herder_outlives_an_unforeseen_error(house, monkeypatch, name):
    streams, calls = Mock(), []

    def step(*_, **__):
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit("planted")
        if len(calls) == 2:
            raise RedisAway("planted")
        return False

    service = house.new_service(streams)
    monkeypatch.setattr(service, "work" if name == "work" else "listen", step)
    if name == "work":
        streams.read_beats.return_value = []
    service.start()
    try:
        wait_for(lambda: len(calls) > 3, "the steps after the failures")
    finally:
        service.stop()


def test_upkeep_forgets_no_texts_where_they_are_kept(house):
    duties = make_upkeep(
        house.database, house.grants, Mock(), keep_text_days=0, clock_us=house.clock
    )
    assert "forget_texts" not in {duty.name for duty in duties}
    with house.database.read() as connection:
        assert duty_sql.counted(connection) == {}
