"""A herder's threads do not wait for each other's connections, nor wake all at once."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from herder.db.database import Database
from herder.duties.runner import SPREAD_S
from herder.errors import HerdUnavailable
from herder.service import loop as service_loop
from herder.service.app import CONNECTIONS, HANDOVER_THREADS


def test_there_is_a_connection_for_each_thread_that_may_want_one(house):
    webhooks = 2
    named_model = 1  # the duty of a herder that was given HERD_MODEL
    service = house.new_service()
    assert "model" not in {duty.name for duty in service.duties}
    threads = 2 + len(service.duties) + named_model + webhooks + HANDOVER_THREADS
    assert threads <= CONNECTIONS


def test_so_many_transactions_go_on_at_once_and_no_more(house, monkeypatch):
    database = Database(house.settings.database, connections=CONNECTIONS)
    monkeypatch.setattr(database._server._reader.pool, "_timeout", 0.1)
    with ExitStack() as readers:
        for _ in range(CONNECTIONS):
            readers.enter_context(database.read())
        with pytest.raises(HerdUnavailable, match="in use"), database.read():
            pass
    database.close()


class Noted:
    """A loop that is made and takes no step."""

    made: dict[str, float]

    def __init__(self, name, _step, *, every_s=0.0, first_s=0.0, **_):
        self.made[name] = first_s
        assert first_s <= SPREAD_S or every_s == 0.0

    def start(self):
        pass


def test_duties_begin_one_after_the_other(house, monkeypatch):
    def starts():
        Noted.made = {}
        monkeypatch.setattr(service_loop, "Loop", Noted)
        house.new_service().start()
        return Noted.made

    made = starts()
    duties = [one.name for one in house.new_service().duties]
    assert len({made[name] for name in duties}) == len(duties)
    assert max(made.values()) < SPREAD_S
    assert made == starts()
