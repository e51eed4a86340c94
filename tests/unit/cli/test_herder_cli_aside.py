"""`herd order aside` and what `herd audit` says of it."""

from __future__ import annotations

import json

import pytest

from herder.store import grants as grant_sql
from tests.unit.cli.herder_cli_support import Cli


@pytest.fixture
def cli(house, monkeypatch) -> Cli:
    return Cli(house, monkeypatch)


@pytest.fixture
def stuck(house, cli):
    """Two orders whose holds somebody has taken in part already."""
    orders = [house.submit(fee=26) for _ in range(2)]
    for order in orders:
        with house.database.write() as connection:
            house.books.post(connection, order.hold_id, 20)
        done = cli.run("order", "cancel", order.id)
        assert done.exit_code == 0
        assert "Its fee stays held" in done.stdout
    yield orders
    for order in orders:
        if house.order(order.id).state == "set_aside":
            cli.says("order", "aside", "give-back", order.id)


def test_a_sound_herd_has_none(cli):
    assert cli.json("audit")["set_aside"] == 0
    assert cli.json("order", "aside", "list") == {"set_aside": [], "next_after": None}


def test_the_audit_shows_them_and_ends_with_1(cli, stuck):
    done = cli.run("audit")
    assert done.exit_code == 1
    assert stuck[0].id in done.stdout
    assert "set aside, with their fees held: 2" in done.stderr
    assert "do not balance" not in done.stderr
    done = cli.run("audit", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["clean"], document["set_aside"]) == (1, True, 2)
    (one, _) = document["set_aside_orders"]
    assert (one["held"], one["was"], one["ends_as"]) == (26, "queued", "cancelled")


def test_a_buyer_is_told_and_waits_no_longer(cli, stuck):
    order = stuck[0].id
    assert "have to look at it" in " ".join(cli.says("order", "show", order).split())
    receipt = cli.json("order", "show", order)
    receipt = receipt.get("receipt", receipt)
    assert (receipt["held"], receipt["charged"]) == (26, 0)
    assert receipt["failure"]["code"] == "order_set_aside"


def test_the_audit_shows_grants_that_are_set_aside(cli, house):
    grant = house.grants.create("default", 5, "day")
    with house.database.write() as connection:
        grant_sql.set_aside(connection, grant.id, "Its period is not known.")
    done = cli.run("audit")
    assert (done.exit_code, "Its period is not known." in done.stdout) == (1, True)
    done = cli.run("audit", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["clean"], document["grants_set_aside"]) == (1, True, 1)
    assert document["set_aside_grants"][0]["id"] == grant.id
    cli.says("account", "grant-end", grant.id)
    assert cli.json("audit")["grants_set_aside"] == 0


def test_they_are_listed_a_page_at_a_time(cli, stuck):
    first = cli.json("order", "aside", "list", "--limit", "1")
    assert len(first["set_aside"]) == 1
    rest = cli.json("order", "aside", "list", "--after", first["next_after"])
    ids = [one["order"] for one in (*first["set_aside"], *rest["set_aside"])]
    assert ids == sorted(order.id for order in stuck)
    assert "already posted" in " ".join(cli.says("order", "aside", "list").split())
    assert ids == sorted(
        one["order"] for one in cli.json("orders", "--state", "set_aside")["orders"]
    )


def test_what_is_refused_again_stays_and_may_be_given_back(cli, house, stuck):
    assert "stays set aside" in cli.refused("order", "aside", "retry", stuck[0].id)
    said = cli.says("order", "aside", "give-back", stuck[0].id)
    assert said == f"Order {stuck[0].id} failed; 26 winston came back to default.\n"
    receipt = cli.json("order", "aside", "give-back", stuck[1].id)
    assert (receipt["charged"], receipt["refunded"], receipt["returned"]) == (20, 20, 6)
    assert house.available() == 100_000
    said = cli.refused("order", "aside", "retry", stuck[0].id)
    assert "not set aside. `herd order aside list` shows" in said
    assert cli.says("audit").endswith("The books balance.\n")
