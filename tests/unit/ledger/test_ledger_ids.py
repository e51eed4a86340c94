"""Ids: one spelling, the same derived id everywhere, stripes that are even."""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid4, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ledger
from tests.unit.ledger.ledger_support import uid


@given(st.uuids(), st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_derived_ids_are_uuid5(parent, words):
    assert ledger.derive(str(parent), *words) == str(uuid5(parent, ":".join(words)))


def test_a_hold_has_one_post_and_one_void():
    hold = str(uuid4())
    assert ledger.post_id(hold) == str(uuid5(UUID(hold), "post"))
    assert ledger.void_id(hold) == str(uuid5(UUID(hold), "void"))


def test_what_is_no_id_has_no_children_and_no_stripe():
    for call in (ledger.post_id, ledger.void_id, lambda x: ledger.stripe(x, 4)):
        with pytest.raises(ledger.InvalidTransferId):
            call("42")


def test_stripes_are_even_and_the_same_everywhere():
    stripes = Counter(ledger.stripe(uid(n), 16) for n in range(16_000))
    assert set(stripes) == set(range(16))
    assert max(stripes.values()) < 2 * min(stripes.values())
    assert ledger.stripe("00000000-0000-4000-8000-000000000000", 16) == 7
    assert ledger.stripe(uid("any"), 1) == 0
