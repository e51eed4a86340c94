"""Herders tell workers the time, signed, and note whose clock differs from theirs."""

from __future__ import annotations

import pytest

from herder.store import herd as herd_sql
from workers.wire import (
    BEATS_STREAM,
    Announcement,
    Beat,
    ClockReading,
    ClockRequest,
    Marker,
    PrivateKey,
    control_stream,
    seal,
    unseal,
)


class Lines:
    """The streams that a herder reads, and what it says there."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.said: list[tuple[str, str]] = []

    def read_beats(self, _consumer, *, count, **_):
        found, self.tokens = self.tokens[:count], self.tokens[count:]
        return [(0, token) for token in found]

    def add_controls(self, messages):
        self.said += messages


def told(house, lines, instance):
    """The readings that an instance was sent, checked as a worker does."""
    herders = {house.key.kid: house.key.public}
    envelopes = [
        unseal(token, herders, audience=control_stream(to))
        for to, token in lines.said
        if to == instance
    ]
    return [one.body for one in envelopes if isinstance(one.body, ClockReading)]


def question(worker, nonce="n1", key: PrivateKey | None = None):
    return seal(
        ClockRequest(nonce=nonce),
        key or worker.key,
        sender=worker.instance,
        audience=BEATS_STREAM,
    )


def test_a_worker_that_asks_is_told_the_time_of_this_herder(house):
    worker = house.worker(announced=False)
    lines = Lines(question(worker, "n1"), question(worker, "n2"))
    house.new_service(lines, name="h-7").listen(0)
    assert told(house, lines, worker.instance) == [
        ClockReading(nonce=nonce, herder="h-7", now_us=house.now_us) for nonce in ("n1", "n2")
    ]


def test_nobody_else_is_told_anything(house):
    worker, revoked = house.worker(), house.worker()
    with house.database.write() as connection:
        herd_sql.revoke_key(connection, revoked.key.kid, house.now_us)
    stranger = PrivateKey.generate()
    lines = Lines(
        question(revoked), question(worker, key=stranger), question(worker, key=house.key)
    )
    house.now_us += 2_000_000  # the keys are read anew
    house.new_service(lines).listen(0)
    assert told(house, lines, worker.instance) == []
    assert told(house, lines, revoked.instance) == []


def test_who_poses_as_another_worker_is_not_answered_and_neither_is_that_one(house):
    worker, poser = house.worker(), house.worker()
    lines = Lines(question(worker, "posed", key=poser.key), question(worker, "own"))
    house.new_service(lines).listen(0)
    assert [one.nonce for one in told(house, lines, worker.instance)] == ["own"]
    assert told(house, lines, poser.instance) == []


def test_a_question_keeps_no_beat_from_being_heard(house):
    worker = house.worker(announced=False)
    beat = Beat(
        number=1, worker=Announcement(name=worker.name, model="stub", slots=1, context=4096)
    )
    marker = seal(Marker(number=1), house.key, sender="herder", audience=BEATS_STREAM)
    spoken = seal(beat, worker.key, sender=worker.instance, audience=BEATS_STREAM)
    lines = Lines(question(worker), spoken, marker)
    house.new_service(lines).listen(0)
    assert len(told(house, lines, worker.instance)) == 1
    with house.database.read() as connection:
        known = herd_sql.get_worker(connection, worker.instance)
    assert known is not None
    assert known.state == "alive"
    assert known.clock_ahead_s == 0


def test_a_clock_that_differs_is_kept_and_told_once(house, monkeypatch):
    import herder.herd.clocks as clocks

    logged = []

    class Log:
        def info(self, event, **ids):
            logged.append((event, ids.get("ahead_s")))

        warning = info

    monkeypatch.setattr(clocks, "_log", Log())
    worker = house.worker()
    for number, ahead_s in enumerate((0, 120, 121, 120, 300, 0, 0), start=2):
        announced = Announcement(
            name=worker.name, model="stub", slots=1, context=4096, clock_ahead_s=ahead_s
        )
        worker.says(Beat(number=number, worker=announced))
        with house.database.read() as connection:
            known = herd_sql.get_worker(connection, worker.instance)
        assert known.clock_ahead_s == ahead_s
    assert [one for one in logged if "clock" in one[0]] == [
        ("worker_clock_differs", 120),
        ("worker_clock_differs", 300),
        ("worker_clock_agrees", None),
    ]


@pytest.mark.parametrize("value", [2**60, "soon"])
def test_what_is_no_number_of_seconds_is_refused(value):
    with pytest.raises(ValueError, match="clock_ahead_s"):
        Announcement(name="w", model="stub", slots=1, context=1, clock_ahead_s=value)
