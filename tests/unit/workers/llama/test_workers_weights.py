"""Weights that were converted at load are nobody's secret."""

from __future__ import annotations

from typing import Any

import pytest

from herder.domain.receipts import receipt_of
from workers import wire


@pytest.mark.parametrize("weights", ["as in the file", "q4_0"])
def test_the_receipt_says_which_weights_answered(
    house: Any, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    def announcement(**values: Any) -> wire.Announcement:
        return wire.Announcement(**values, weights=weights)

    monkeypatch.setattr("tests.support.house.Announcement", announcement)
    order = house.submit()
    worker = house.worker()
    job = house.dispatched()
    worker.claim(job)
    worker.finish(job)
    assert receipt_of(house.order(order.id)).weights == weights
