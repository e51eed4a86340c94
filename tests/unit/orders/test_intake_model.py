"""Whatever clients, workers and time do, the herd agrees with plain dictionaries; and the machine
that says so notices faults that are planted."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.exc import DBAPIError

from herder.errors import HerdError
from ledger import LedgerError
from tests.support.thorough import examples
from tests.unit.orders.intake_faults import FAULTS
from tests.unit.orders.intake_house import new_house
from tests.unit.orders.intake_machine import DeskMachine

# The same search on every run: where it finds something, so does the next one.
SEARCH = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
# No shrinking: what is asked is only whether it finds anything.
HUNT = settings(SEARCH, max_examples=300, phases=[Phase.generate], report_multiple_bugs=False)


@pytest.fixture
def machine(make_house):
    house = new_house(make_house)
    yield type("Machine", (DeskMachine,), {"house": house})
    house.database.close()


def test_the_herd_agrees_with_plain_dictionaries(machine):
    # On PostgreSQL each step costs a talk with the server, and fewer must do.
    embedded = machine.house.settings.database.startswith("sqlite")
    most = examples(30, 300) if embedded else examples(15, 150)
    run_state_machine_as_test(machine, settings=settings(SEARCH, max_examples=most))


# The faults are in what both databases share, and the hunt is quicker on SQLite.
embedded = pytest.mark.parametrize("new_database", ["sqlite"], indirect=True)


@embedded
@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_the_hunt_finds_every_fault(machine, monkeypatch, plant):
    plant(monkeypatch)
    with pytest.raises((AssertionError, HerdError, LedgerError, DBAPIError)):
        run_state_machine_as_test(machine, settings=HUNT)
