"""`herd account grant`, `grants` and `grant-end`."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from herder.db.tables import grants
from herder.domain.periods import Every, day_of
from tests.unit.cli.herder_cli_support import Cli

KEY = "2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11"


@pytest.fixture
def cli(house, monkeypatch) -> Cli:
    return Cli(house, monkeypatch)


def test_a_grant_is_made_shown_and_ended(cli):
    cli.says("account", "create", "ada")
    made = cli.json(
        *("account", "grant", "ada", "500", "--every", "month", "--note", "share", "--id", KEY)
    )
    assert (made["id"], made["account"], made["amount"], made["every"]) == (
        *(KEY, "ada", 500),
        "month",
    )
    assert cli.json("account", "balance", "ada")["available"] == 500
    again = cli.says(
        *("account", "grant", "ada", "500", "--every", "month", "--note", "share", "--id", KEY)
    )
    assert KEY in again
    assert "1 posted" in again
    assert cli.json("account", "balance", "ada")["available"] == 500

    month = Every.MONTH
    running = month.beginning(day_of(made["created_us"]))
    assert month.label(running) in cli.says("account", "statement", "ada")
    listed = cli.says("account", "grants")
    assert month.following(running).isoformat() in listed
    assert cli.json("account", "grants", "ada") == {"grants": [made]}
    assert cli.json("account", "grants", "default") == {"grants": []}

    assert "after 1 periods" in cli.says("account", "grant-end", KEY)
    assert cli.json("account", "grant-end", KEY)["ended_us"] is not None
    assert "ended" in cli.says("account", "grants")


def test_one_that_is_set_aside_says_why(cli, house):
    made = cli.json("account", "grant", "default", "5", "--every", "day")
    house.now_us += 86_400_000_000
    with house.database.write() as connection:
        connection.execute(update(grants).values(every="fortnight"))
    house.grants.post_due()
    listed = cli.says("account", "grants")
    assert "set aside" in listed
    assert f"Grant {made['id']} was set aside" in listed
    assert "'fortnight' is not known to this version" in listed
    (told,) = cli.json("account", "grants")["grants"]
    assert (told["every"], told["ended_us"]) == ("fortnight", None)


def test_a_grant_that_begins_later_says_when(cli):
    said = cli.says("account", "grant", "default", "5", "--every", "day", "--from", "9998-01-01")
    assert "none posted yet, next 9998-01-01" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grant", "default", "5"], "--every"),
        (["grant", "default", "5", "--every", "year"], "day, week, month"),
        (["grant", "default", "-5", "--every", "day"], "whole number of winston"),
        (["grant", "nobody", "5", "--every", "day"], "nobody"),
        (["grant", "default", "5", "--every", "day", "--from", "soon"], "--from must be a date"),
        (["grant", "default", "5", "--every", "day", "--from", "2020-01-01"], "must begin today"),
        (["grant", "default", "5", "--every", "day", "--id", "5"], "UUID"),
        (["grant", "default", "5", "--every", "day", "--note", "x" * 201], "200"),
        (["grants", "nobody"], "nobody"),
        (["grant-end", KEY], "no grant"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(cli, words, said):
    assert said in cli.refused("account", *words)
    assert cli.json("account", "grants") == {"grants": []}


def test_help_has_an_example(cli):
    for command in ("grant", "grants", "grant-end"):
        assert f"herd account {command} " in cli.says("account", command, "--help")
