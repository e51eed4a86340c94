"""The `herd` command against a herder elsewhere: the same words, the same answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.typed import Terminal, answered, typed
from tests.support.wait import wait_for


@pytest.fixture
def elsewhere(herd, tmp_path) -> dict[str, str]:
    """The environment of somebody on another machine, who has an API key and nothing else."""
    _, key = herd.client.api_keys.create("default")
    _, url = herd.start_gateway()
    return {"HERD_URL": url, "HERD_API_KEY": key, "HERD_HOME": str(tmp_path / "nowhere")}


def same(herd: Any, elsewhere: dict[str, str], *words: str) -> Any:
    """What a command answers here and over there, which is the same."""
    here, there = answered(herd, *words), answered(herd, *words, **elsewhere)
    assert (there.returncode, there.stdout, there.stderr) == (
        here.returncode,
        here.stdout,
        here.stderr,
    )
    return json.loads(here.stdout) if "--json" in words and here.returncode == 0 else here


def quoted(herd: Any, **env: str) -> tuple[dict[str, Any], list[str]]:
    """What `herd quote` says beside its time and its signature."""
    document, text = (
        answered(herd, "quote", "Hi", "-n", "5", *more, **env).stdout for more in (["--json"], [])
    )
    found = json.loads(document)
    assert found.pop("quote")
    assert found.pop("expires")
    return found, [line for line in text.splitlines() if not line.startswith("binding")]


def test_every_command_of_a_buyer_answers_as_it_does_beside_the_herder(herd, elsewhere, tmp_path):
    herd.start_worker(HERD_STUB_STEP_MS="1")
    bought = answered(
        herd, "submit", "What is it?", "-n", "12", "--fee", "50", "--reference", "é", **elsewhere
    )
    assert bought.returncode == 0, bought.stderr
    assert len(bought.stdout.split()) == 12
    assert "charged 50 of 50 winston" in bought.stderr
    (order,) = herd.client.orders()
    assert bought.stdout == herd.client.answer(order.order).text + "\n"

    # What a beat reports comes a moment later.
    wait_for(lambda: herd.client.info().model.free_slots == 2, "its slots are free")
    for words in (["order", "show", order.order], ["info"]):
        same(herd, elsewhere, *words)
        same(herd, elsewhere, *words, "--json")
    # A quote is signed anew each time, for a minute from then on.
    here, there = (quoted(herd, **env) for env in ({}, elsewhere))
    assert there == here
    assert here[0]["needed"] == 7
    shown = same(herd, elsewhere, "order", "show", order.order, "--text", "--json")
    assert shown["text"] + "\n" == bought.stdout
    for words in (["orders"], ["model", "list"], ["account", "balance"]):
        same(herd, elsewhere, *words)
        same(herd, elsewhere, *words, "--json")
    same(herd, elsewhere, "account", "balance", "default")
    entries = same(herd, elsewhere, "account", "statement", "--json")["entries"]
    assert [one["kind"] for one in entries] == ["deposit", "hold", "charge"]
    same(herd, elsewhere, "account", "statement", "--limit", "2")
    same(herd, elsewhere, "order", "cancel", order.order)

    signed = answered(herd, "receipt", "get", order.order, **elsewhere)
    (tmp_path / "receipt.jws").write_text(signed.stdout)
    genuine = same(herd, elsewhere, "receipt", "verify", str(tmp_path / "receipt.jws"))
    assert genuine.stdout.startswith(f"Genuine: order {order.order} of default is completed")


def test_an_order_that_waits_is_bid_for_and_cancelled_from_there(herd, elsewhere):
    waits = typed(herd, "submit", "two words", "-n", "10", "--fee", "20", **elsewhere)
    (order,) = wait_for(lambda: herd.client.orders(), "it is taken")
    raised = answered(herd, "order", "rebid", order.order, "30", **elsewhere)
    assert "now offers 30 winston" in raised.stdout
    same(herd, elsewhere, "order", "rebid", order.order, "25")  # refused: less than it offers
    same(herd, elsewhere, "order", "show", order.order, "--json")
    stopped = answered(herd, "order", "cancel", order.order, **elsewhere)
    assert "30 winston were returned" in stopped.stdout
    out, said = waits.communicate(timeout=60)
    assert (waits.returncode, out) == (1, "")
    assert "is waiting for workers" in said
    assert "cancelled" in said
    same(herd, elsewhere, "order", "show", order.order, "--json")


def test_pages_are_longer_than_a_gateways(herd, elsewhere):
    placed = [herd.submit(f"Number {number}", 1).id for number in range(103)]
    listed = same(herd, elsewhere, "orders", "--limit", "102", "--json")
    assert [one["order"] for one in listed["orders"]] == placed[:0:-1]
    assert listed["next_before"] == placed[1]
    entries = same(herd, elsewhere, "account", "statement", "--limit", "103", "--json")
    assert len(entries["entries"]) == 103
    assert same(herd, elsewhere, "orders", "--limit", "1001").returncode == 2


def test_refusals_are_the_same(herd, elsewhere):
    for words in (
        ["submit", "two words", "-n", "10", "--fee", "5"],
        ["submit", "two words", "-n", "10", "--model", "larger"],
        ["submit", "", "-n", "10"],
        ["quote", "two words", "-n", "0"],
        ["order", "show", "nothing"],
        ["order", "show", "../v1/info"],
        ["order", "show", ""],
        ["orders", "--before", "nothing"],
        ["orders", "--state", "lost"],
        ["account", "statement", "--limit", "0"],
    ):
        refused = same(herd, elsewhere, *words)
        assert (refused.returncode, refused.stdout) == (2, "")
    # What only its operator can type is said beside the herder alone.
    dear = ("submit", "two words", "-n", "10", "--fee", "2000000")
    here, there = answered(herd, *dear), answered(herd, *dear, **elsewhere)
    assert (here.returncode, there.returncode) == (2, 2)
    hint = "`herd account deposit default 1000000` does that."
    assert here.stderr == f"{there.stderr.rstrip()} {hint}\n"
    assert "operator adds money" in there.stderr
    for words in (["orders", "--account", "ada"], ["account", "balance", "ada"]):
        refused = answered(herd, *words, **elsewhere)
        assert refused.returncode == 2
        assert "API key belongs to account 'default'" in refused.stderr


def test_ctrl_c_asks_whether_to_cancel(herd, elsewhere):
    herd.start_worker(HERD_STUB_STEP_MS="150")
    for key, state, said in (
        ("y", "cancelled", "cancelled: charged"),
        ("n", "running", "continues"),
    ):
        terminal = Terminal(herd, "submit", "A long story", "-n", "1000", **elsewhere)
        try:
            wait_for(lambda: herd.client.orders(state="running", limit=1), "it runs")
            (order,) = herd.client.orders(state="running", limit=1)
            wait_for(
                lambda typed=terminal: typed.shown.strip(),
                "the command heard of it, and shows its text",
            )
            terminal.interrupt()
            terminal.says(f"Cancel order {order.order}?")
            terminal.type(key + "\r")
            terminal.says(said)
            assert terminal.ended() == 130
            assert herd.client.receipt(order.order).state == state
        finally:
            terminal.close()
    herd.client.cancel(order.order)


def test_the_command_line_goes_before_the_environment(herd, elsewhere, tmp_path):
    _, ada = _ada(herd)
    (tmp_path / "key").write_text(ada + "\n")
    named = answered(
        herd,
        *("--url", elsewhere["HERD_URL"] + "/", "--api-key-file", str(tmp_path / "key")),
        *("account", "balance"),
        HERD_URL="http://127.0.0.1:1",
        HERD_API_KEY=elsewhere["HERD_API_KEY"],
    )
    assert named.returncode == 0, named.stderr
    assert "ada" in named.stdout


def _ada(herd: Any) -> Any:
    herd.client.accounts.create("ada")
    return herd.client.api_keys.create("ada", scopes=["read"])


def test_a_key_for_reading_buys_nothing(herd, elsewhere):
    _, key = _ada(herd)
    refused = answered(herd, "submit", "Hi", "-n", "5", **{**elsewhere, "HERD_API_KEY": key})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "does not have the scope 'buy'" in refused.stderr
    wrong = answered(herd, "info", **{**elsewhere, "HERD_API_KEY": "herd_x_y"})
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
