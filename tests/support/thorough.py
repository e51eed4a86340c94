"""How long a search goes on: briefly in `make test`, and for long in `make simulate`."""

from __future__ import annotations

import os

THOROUGH = "TESTS_THOROUGH"
"""The variable that `make simulate` sets for the searches that are tests."""


def examples(quick: int, thorough: int) -> int:
    """Return how many examples a search tries, by who runs it."""
    return thorough if os.environ.get(THOROUGH) else quick
