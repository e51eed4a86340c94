"""The simulator finds charges for what nobody was given, and readers who do not pay."""

from __future__ import annotations

import pytest

from herder.orders import settlement as settlement_module
from herder.orders.reader import TextLine
from tests.simulation import readers as readers_module
from tests.simulation.planting import found


@pytest.fixture(autouse=True)
def _clean(clean_environment):
    """No settings of whoever runs the tests."""


def test_a_charge_for_all_that_a_cancelled_order_made(monkeypatch):
    monkeypatch.setattr(
        settlement_module, "delivered_part", lambda _order, outcome, _reach: outcome
    )
    assert found() == "delivered"


def test_a_reader_who_notes_nothing(monkeypatch):
    monkeypatch.setattr(TextLine, "_note", lambda *_, **__: None)
    assert found() == "unpaid"


def test_a_reader_who_reads_on_after_a_cancellation(monkeypatch):
    monkeypatch.setattr(readers_module, "may_hand_out", lambda *_: True)
    assert found() == "unpaid"
