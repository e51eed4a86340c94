"""The simulator finds charges for what nobody was given, and readers who do not pay."""

from __future__ import annotations

import pytest

from herder.orders import settlement as settlement_module
from herder.orders.reader import TextLine
from tests.simulation import readers as readers_module
from tests.simulation.planting import found, reached


@pytest.fixture(autouse=True)
def _clean(clean_environment):
    """No settings of whoever runs the tests."""


def test_a_charge_for_all_that_a_cancelled_order_made(monkeypatch):
    delivered_part = settlement_module.delivered_part

    def all_of_it(order, outcome, reach):
        if delivered_part(order, outcome, reach) != outcome:
            reached()
        return outcome

    monkeypatch.setattr(settlement_module, "delivered_part", all_of_it)
    assert found() == "delivered"


def test_a_reader_who_notes_nothing(monkeypatch):
    monkeypatch.setattr(TextLine, "_note", lambda *_, **__: reached())
    assert found() == "unpaid"


def test_a_reader_who_reads_on_after_a_cancellation(monkeypatch):
    may_hand_out = readers_module.may_hand_out

    def always(order, attempt):
        if not may_hand_out(order, attempt):
            reached()
        return True

    monkeypatch.setattr(readers_module, "may_hand_out", always)
    assert found() == "unpaid"
