"""Whatever clients and strangers do, the books agree with plain dictionaries; and the machine that
says so notices when any of the database's rules is missing."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ledger import LedgerError
from tests.support.thorough import examples
from tests.unit.ledger.ledger_model import LedgerMachine
from tests.unit.ledger.ledger_support import is_sqlite, open_books

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much]
SEARCH = settings(
    max_examples=examples(40, 400),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=QUIET,
)
# The same search on every run, and no shrinking: what is asked is only whether it finds anything.
HUNT = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=QUIET,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)

CONSTRAINTS = [
    "ledger_account_no_overdraft",
    "ledger_transfer_pending_id_key",
    "ledger_transfer_post_within_hold",
    "ledger_transfer_void_whole",
    "ledger_transfer_of_hold",
    "ledger_transfer_of_refunded",
    "ledger_refundable_within_amount",
    "ledger_transfer_no_update",
]
BALANCES = [
    "ledger_transfer_apply_direct",
    "ledger_transfer_apply_pending",
    "ledger_transfer_apply_post",
    "ledger_transfer_apply_void",
    "ledger_transfer_apply_refund",
]


def machine_on(url, without=None):
    books = open_books(url, without)
    return type("Machine", (LedgerMachine,), {"books": books})


def scaled(how, url):
    """As it is on SQLite; elsewhere each step costs a talk with the server, and fewer must do."""
    return how if is_sqlite(url) else settings(how, max_examples=how.max_examples // 2)


def test_the_books_agree_with_plain_dictionaries(new_url):
    url = new_url()
    run_state_machine_as_test(machine_on(url), settings=scaled(SEARCH, url))


def test_the_hunt_finds_nothing_in_the_schema_as_it_is(new_url):
    url = new_url()
    run_state_machine_as_test(machine_on(url), settings=scaled(HUNT, url))


@pytest.mark.parametrize("without", CONSTRAINTS + BALANCES)
def test_the_hunt_finds_every_missing_rule(new_url, without):
    machine = machine_on(new_url(), without)
    with pytest.raises((AssertionError, LedgerError)):
        run_state_machine_as_test(machine, settings=HUNT)
