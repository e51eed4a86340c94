"""`herd init` and `herd account`: money comes in, moves once, and bad amounts move nothing."""

from __future__ import annotations

import sqlite3

import pytest

from tests.unit.cli.herder_cli_support import Cli

KEY = "2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11"


@pytest.fixture
def cli(house, monkeypatch) -> Cli:
    return Cli(house, monkeypatch)


def test_init_makes_a_herd_once(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HERD_HOME", str(tmp_path / "new"))
    line = cli.refused("account", "list")
    assert "herd init" in line

    made = cli.json("init", "--deposit", "1000")
    assert made["deposited"] == 1000
    assert made["account"] == "default"
    assert cli.json("account", "balance")["available"] == 1000

    again = cli.run("init", "--deposit", "5")
    assert again.exit_code == 0
    assert "herd account deposit default 5" in again.stderr
    assert cli.json("init")["made"] == []
    assert cli.json("account", "balance")["available"] == 1000


def test_init_refuses_an_amount_before_it_makes_anything(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HERD_HOME", str(tmp_path / "new"))
    assert "whole number of winston" in cli.refused("init", "--deposit", "1.5")
    assert not (tmp_path / "new").exists()


def test_a_home_that_cannot_be_made_is_one_line(cli, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HERD_HOME", str(tmp_path / "file" / "home"))
    assert "HERD_HOME" in cli.refused("init")
    cli.refused("info")


def test_a_wrong_setting_or_a_damaged_database_is_one_line(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HERD_LEASE_S", "soon")
    assert "HERD_LEASE_S" in cli.refused("account", "list")
    monkeypatch.delenv("HERD_LEASE_S")
    monkeypatch.setenv("HERD_REDIS_URL", "redis://localhost:port/0")
    assert "HERD_REDIS_URL" in cli.refused("account", "list")
    monkeypatch.undo()
    monkeypatch.setenv("HERD_HOME", str(tmp_path / "new"))
    cli.says("init")
    monkeypatch.setenv("HERD_DATABASE_URL", f"sqlite:///{tmp_path / 'noise.db'}")
    (tmp_path / "noise.db").write_text("no database at all, " * 100)
    assert "database" in cli.refused("account", "list")


def test_accounts_are_opened_filled_and_emptied(cli):
    assert cli.json("account", "create", "ada") == {
        "account": "ada",
        "posted": 0,
        "held": 0,
        "available": 0,
    }
    done = cli.json("account", "deposit", "ada", "50", "--id", KEY, "--note", "[red]March")
    assert (done["id"], done["amount"]) == (KEY, 50)
    assert done["accounts"][0]["available"] == 50

    moved = cli.json("account", "transfer", "ada", "default", "20")
    assert [one["posted"] for one in moved["accounts"]] == [30, 100_020]
    assert cli.json("account", "withdraw", "ada", "30")["accounts"][0]["posted"] == 0

    listed = cli.json("account", "list")["accounts"]
    assert [(one["account"], one["posted"]) for one in listed] == [("ada", 0), ("default", 100_020)]
    entries = cli.json("account", "statement", "ada")["entries"]
    assert [one["amount"] for one in entries] == [50, -20, -30]
    shown = cli.says("account", "statement", "ada")
    for word in ("deposit", "[red]March", "sent", "withdrawal"):
        assert word in shown


def test_money_moves_once_under_one_id(cli):
    for _ in range(2):
        cli.says("account", "deposit", "default", "50", "--id", KEY)
        assert cli.json("account", "balance")["posted"] == 100_050
    # The same id in capitals is the same id.
    cli.says("account", "deposit", "default", "50", "--id", KEY.upper())
    assert cli.json("account", "balance")["posted"] == 100_050
    assert "amount differs" in cli.refused("account", "deposit", "default", "51", "--id", KEY)
    cli.refused("account", "withdraw", "default", "50", "--id", KEY)


def test_the_id_that_was_drawn_is_shown(cli):
    key = cli.json("account", "deposit", "default", "5")["id"]
    said = cli.says("account", "deposit", "default", "5", "--id", key)
    assert key in said
    assert cli.json("account", "balance")["posted"] == 100_005


@pytest.mark.parametrize(
    "amount",
    [
        *("1.5", "NaN", "nan", "inf", "-3", "-1.5", "0", "", " 5", "+5", "1e400", "1e3", "1_000"),
        *("1,000", "٣", "0x10", "9" * 30, "9" * 5000, str(2**53), "five", "5\n6", "\x1b[31m5"),
    ],
)
def test_what_is_no_amount_moves_nothing(cli, amount):
    for words in (["deposit", "default"], ["withdraw", "default"], ["transfer", "default", "ada"]):
        line = cli.refused("account", *words, amount)
        assert "whole number of winston" in line
        assert "\x1b" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "default"], "already"),
        (["create", "two words"], "letters, digits"),
        (["create", ""], "letters, digits"),
        (["create", "x" * 64], "1 to 63"),
        (["create"], "Missing argument"),
        (["balance", "nobody"], "herd account create nobody"),
        (["statement", "nobody"], "nobody"),
        (["deposit", "nobody", "5"], "nobody"),
        (["transfer", "default", "nobody", "5"], "nobody"),
        (["transfer", "nobody", "default", "5"], "nobody"),
        (["transfer", "default", "default", "5"], "cannot pay itself"),
        (["withdraw", "default", "100001"], "100000"),
        (["deposit", "default", "5", "--id", "5"], "UUID"),
        (["deposit", "default", "5", "--note", ""], "--note"),
        (["deposit", "default", "5", "--note", "x" * 1001], "--note"),
        (["deposit", "default", "5", "6"], "unexpected extra argument"),
        (["statement", "--limit", "0"], "limit"),
        (["statement", "--limit", "1.5"], "limit"),
        (["statement", "--limit", "1001"], "1000"),
        (["statement", "--after", "-1"], "after_seq"),
        (["nonsense"], "No such command"),
        ([], "Missing command"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(cli, words, said):
    assert said in cli.refused("account", *words)


def test_a_name_that_is_no_text_is_refused(cli):
    assert "UTF-8" in cli.refused("account", "deposit", "default", "5", "--note", "\udcff")


def test_a_statement_comes_by_pages(cli):
    for _ in range(4):
        cli.says("account", "deposit", "default", "1")
    first = cli.json("account", "statement", "--limit", "3")
    rest = cli.json("account", "statement", "--after", str(first["next_after"]))
    assert len(first["entries"]) == 3
    assert len(rest["entries"]) == 2
    assert rest["next_after"] is None
    paged = cli.run("account", "statement", "--limit", "3")
    assert f"--after {first['next_after']}" in paged.stderr


def test_the_audit_balances_or_ends_with_1(cli, tmp_path, monkeypatch):
    assert cli.json("audit")["clean"] is True
    assert "balance" in cli.says("audit")

    monkeypatch.setenv("HERD_HOME", str(tmp_path / "tampered"))
    cli.says("init", "--deposit", "7")
    with sqlite3.connect(tmp_path / "tampered" / "herd.db") as books:
        books.execute(
            "UPDATE ledger_account SET credits_posted = credits_posted + 1 "
            "WHERE id = 'client:default'"
        )
    books.close()
    for words in (["audit"], ["audit", "--json"]):
        done = cli.run(*words)
        assert done.exit_code == 1
        assert "do not balance" in done.stderr
