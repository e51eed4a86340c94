"""What tests of every folder may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("HERD_"):
            monkeypatch.delenv(name)


@pytest.fixture
def make_house(tmp_path, clean_environment) -> Iterator[Callable[..., Any]]:
    """Makes herds; at the end of the test the money of each is checked."""
    from support.house import House

    houses: list[House] = []

    def make(policy: dict[str, Any] | None = None, **settings: Any) -> House:
        house = House(tmp_path / f"house{len(houses)}", policy, **settings)
        houses.append(house)
        return house

    yield make
    for house in houses:
        house.check()
        house.close()


@pytest.fixture
def house(make_house) -> Any:
    """A herd with its default settings, and 100,000 winston in account `default`."""
    made = make_house()
    made.fund(100_000)
    return made
