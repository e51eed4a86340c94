"""The tree of refusals: every one has a sentence, a code and data, and survives a queue."""

from __future__ import annotations

import inspect
import pickle

import pytest

import ledger
from ledger import errors

TREE = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.LedgerError)
]
LEAVES = [c for c in TREE if c not in (errors.LedgerError, errors.InvalidRequest)]
EXAMPLES = {
    "account": "ada", "account_id": "ada", "amount": 1.5, "asked": 6, "available": 5,
    "credit": "bob", "debit": "ada", "field": "amount", "held": 7, "hold_id": "H", "kind": "void",
    "least": 1, "most": 9, "reason": "why", "refundable": 3, "required": 8, "resolved_by": "P",
    "size": 2_000, "stored": 5, "transfer_id": "T", "value": "x",
}  # fmt: skip


def example(error: type[errors.LedgerError]) -> errors.LedgerError:
    names = list(inspect.signature(error).parameters)
    return error(*(EXAMPLES[name] for name in names))


def test_the_exported_surface_is_what_it_says():
    assert len(set(ledger.__all__)) == len(ledger.__all__)
    assert all(hasattr(ledger, name) for name in ledger.__all__)
    assert {c.__name__ for c in TREE} <= set(ledger.__all__)


def test_codes_are_unique_and_stable_words():
    codes = [c.code for c in TREE]
    assert len(set(codes)) == len(codes)
    assert all(code.startswith("ledger_") and code == code.lower() for code in codes)


@pytest.mark.parametrize("error", LEAVES, ids=lambda c: c.__name__)
def test_each_has_a_sentence_made_of_its_data(error):
    made = example(error)
    assert str(made)[0].isupper() or str(made).startswith(("ada", "bob"))
    assert set(made.data) == set(inspect.signature(error).parameters)
    assert error.__doc__


@pytest.mark.parametrize("error", LEAVES, ids=lambda c: c.__name__)
def test_each_survives_a_queue(error):
    made = example(error)
    back = pickle.loads(pickle.dumps(made))
    assert (type(back), str(back), back.data) == (type(made), str(made), made.data)


def test_only_busy_is_worth_doing_again():
    assert [c.__name__ for c in TREE if c.retryable] == ["LedgerBusy"]
