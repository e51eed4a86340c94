"""The simulator finds what goes wrong when the database goes away: faults are planted here too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herder.db.database import Database
from herder.db.outages import CommitUnknown
from herder.errors import HerdUnavailable
from herder.orders.intake import OrderIntake
from herder.orders.reader import OrderReader
from tests.simulation.herder import Parts
from tests.simulation.planting import found, often, reached

pytestmark = pytest.mark.timeout(1800)  # many seeds, which took 600 s at a load of 17


@pytest.fixture(autouse=True)
def _clean(clean_environment):
    """No settings of whoever runs the tests."""


class TakesAnew(OrderIntake):
    """Draws another id for each try: one that was made and not heard of is there as well."""

    def submit(self, call):
        drawn = []

        def anew(connection):
            if drawn:
                reached()
            drawn.append(self._new_id())
            return self.take(connection, drawn[-1], call)

        return self._database.settle(anew)


def test_a_call_that_is_taken_anew_when_its_commit_was_cut_off():
    assert found(Parts(intake=TakesAnew), often(cut_commit=0.1)) == "one_order"


def test_a_cut_off_commit_that_counts_as_not_made(monkeypatch):
    def hasty(database, step):
        try:
            return database.transact(step)
        except CommitUnknown as error:
            reached()
            raise HerdUnavailable(error.message) from error

    monkeypatch.setattr(Database, "settle", hasty)
    # A bid's client sees it as well.
    assert found(prepare=often(cut_commit=0.1)) in ("one_order", "one_bid")


def test_a_wait_that_tells_another_charge(monkeypatch):
    answer = OrderReader.answer

    def wrong(answers, order_id):
        result = answer(answers, order_id)
        reached()
        return replace(result, receipt=replace(result.receipt, charged=result.receipt.charged + 1))

    monkeypatch.setattr(OrderReader, "answer", wrong)
    assert found() == "told"
