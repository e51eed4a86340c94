"""One row that cannot be read is shown as such, and the rest of its list as ever."""

from __future__ import annotations

import pytest
from sqlalchemy import text, update

from herder.cli.show import when
from herder.db.tables import grants, message
from herder.gateway.routes import messages as message_routes
from herder.gateway.schemas.operators import GrantCard
from herder.messages.inbox import read_inbox
from tests.unit.cli.herder_cli_support import Cli

NEVER_US = 2**62


@pytest.mark.parametrize("stored", ["[1, 2]", '"text"', "null", "{not json", '{"Action": 5}'])
def test_a_message_whose_tags_are_no_tags(house, caplog, stored):
    for _ in range(3):
        house.send(Action="Balance")
    with house.database.write() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if not sqlite and stored.startswith("{not"):
            pytest.skip("PostgreSQL stores no such JSON")
        tags = ":tags" if sqlite else "CAST(:tags AS json)"
        statement = text(f"UPDATE message SET tags = {tags} WHERE number = 2")
        connection.execute(statement, {"tags": stored})
    first, bad, last = read_inbox(house.database, "default", 0, 10)
    assert (bad.number, bad.tags["Action"]) == (2, "Unreadable")
    assert "cannot be read" in bad.tags["X-Reason"]
    assert (first.tags["Action"], last.tags["Action"]) != ("Unreadable", "Unreadable")
    assert message_routes._shown(bad).tags["Action"] == "Unreadable"


def test_dates_that_no_calendar_has(house, monkeypatch):
    bad, good = (house.grants.create("default", 5, "day") for _ in range(2))
    house.send(Action="Balance")
    with house.database.write() as connection:
        wrong = update(grants).where(grants.c.id == bad.id)
        connection.execute(wrong.values(next_us=-NEVER_US, created_us=-NEVER_US))
        connection.execute(update(message).values(at_us=NEVER_US))
    cards = {one.id: GrantCard.of(one) for one in house.grants.list()}
    assert (cards[bad.id].created, cards[bad.id].next) == (None, None)
    assert cards[good.id].next is not None
    (told,) = read_inbox(house.database, "default", 0, 10)
    assert message_routes._shown(told).at is None
    shown = Cli(house, monkeypatch).says("account", "grants")
    assert "unreadable" in shown
    assert good.id in shown
    assert when(NEVER_US) == when(-NEVER_US) == "unreadable"
