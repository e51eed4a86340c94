"""What the quick tests may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Callable[[], str]]:
    """Gives the address of an empty database for the ledger, of each kind: each time another."""
    from tests.unit.ledger.ledger_support import close_engines

    numbers = count(1)
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path}/books{next(numbers)}.db"
    else:
        yield request.getfixturevalue("postgres_server").new_books
    close_engines()
