"""The simulator finds charges for what nobody was given, and readers who do not pay."""

from __future__ import annotations

import pytest

from herder.orders import settlement as settlement_module
from herder.orders.cancellation import Cancellation
from herder.orders.reader import TextLine
from tests.simulation import readers as readers_module
from tests.simulation.planting import ORDERS, found, often, reached
from tests.simulation.run import run_seed

HASTY = often(reads_and_cancels=0.5, herder_stops=0.1)
"""Many cancel once they are given the first words, before any herder heard of the claim."""

pytestmark = pytest.mark.timeout(1800)  # many seeds, which took 600 s at a load of 17


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
    assert found(first=4) == "unpaid"


def test_a_reader_who_reads_on_after_a_cancellation(monkeypatch):
    may_hand_out = readers_module.may_hand_out

    def always(order, attempt):
        if not may_hand_out(order, attempt):
            reached()
        return True

    monkeypatch.setattr(readers_module, "may_hand_out", always)
    assert found(first=11) == "unpaid"


def test_what_was_read_before_its_claim_was_heard_is_paid(monkeypatch):
    """The rules hold where many do it; the faults below are in how that is seen to."""
    was_read = Cancellation._was_read
    seen = []

    def noted(self, order):
        seen.append(was_read(self, order))
        return seen[-1]

    monkeypatch.setattr(Cancellation, "_was_read", noted)
    for seed in range(1, 13):
        report = run_seed(seed, ORDERS, prepare=HASTY)
        assert report.rule is None, report.what
        if any(seen) and not all(seen):
            return
    raise AssertionError("nobody cancelled what was read before its claim was heard")


def test_a_cancellation_that_looks_at_no_readers_before_the_claim(monkeypatch):
    was_read = Cancellation._was_read

    def never(self, order):
        if was_read(self, order):
            reached()
        return False

    monkeypatch.setattr(Cancellation, "_was_read", never)
    assert found(prepare=HASTY) == "unpaid"
