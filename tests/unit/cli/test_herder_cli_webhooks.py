"""`herd webhooks`: made, shown, changed, and sent again; the secret is shown once."""

from __future__ import annotations

import pytest

from herder.webhooks.schedule import Reply
from tests.support.house import FakeReceiver
from tests.unit.cli.herder_cli_support import Cli

URL = "https://ada.example/herd"


@pytest.fixture
def cli(house, monkeypatch) -> Cli:
    return Cli(house, monkeypatch)


def test_a_webhook_from_its_making_to_its_end(cli, house):
    made = cli.json("webhooks", "create", "default", URL, "--types", "order.failed,order.completed")
    assert made["secret"].startswith("whsec_")
    assert made["types"] == ["order.completed", "order.failed"]
    assert made["include_text"] is False
    which = made["id"]
    (listed,) = cli.json("webhooks", "list", "default")["webhooks"]
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    assert cli.json("webhooks", "list", "default")["webhooks"] == [listed]
    assert which in cli.says("webhooks", "list")

    said = cli.says("webhooks", "rotate", which)
    assert said.startswith("whsec_")
    assert made["secret"] not in said
    shown = cli.says("webhooks", "show", which)
    assert "whsec_" not in shown
    assert "signs until" in shown
    assert cli.json("webhooks", "disable", which)["why"] == "asked"
    assert "disabled (asked)" in cli.says("webhooks", "show", which)
    assert "gets messages again" in cli.says("webhooks", "enable", which)
    assert "is forgotten" in cli.says("webhooks", "delete", which)
    assert "There is no webhook" in cli.refused("webhooks", "show", which)
    assert cli.json("webhooks", "list")["webhooks"] == []


def test_what_was_given_up_is_shown_and_sent_again(cli, house):
    which = cli.json("webhooks", "create", "default", URL)["id"]
    receiver = FakeReceiver()
    receiver.reply = Reply(None, "timeout")
    deliverer = house.new_deliverer(receiver, retries_s=())
    for _ in range(2):
        house.cancellation.cancel(house.submit().id)
    while deliverer.step(0):
        pass
    shown = cli.json("webhooks", "show", which, "--state", "dead")
    assert shown["messages"] == {"pending": 0, "delivered": 0, "dead": 2}
    assert {one["trouble"] for one in shown["deliveries"]} == {"timeout"}
    assert shown["failing_since_us"] is not None
    assert "failing" in cli.says("webhooks", "list")
    assert "timeout" in cli.says("webhooks", "show", which)
    one = shown["deliveries"][0]["id"]
    assert cli.json("webhooks", "replay", which, "--message", one)["replayed"] == 1
    late = cli.says("webhooks", "replay", which, "--since", "2999-01-01T00:00:00Z")
    assert late == "0 messages are queued to be sent again.\n"
    assert cli.says("webhooks", "replay", which) == "1 message is queued to be sent again.\n"
    refused = cli.refused("webhooks", "replay", which, "--until", "yesterday")
    assert "--until must be a time with its zone" in refused
    assert "msg_none" in cli.refused("webhooks", "replay", which, "--message", "msg_none")


def test_a_test_says_what_came_of_it(cli, house):
    which = cli.json("webhooks", "create", "default", URL)["id"]
    done = cli.run("webhooks", "test", which, "--wait", "0")
    assert (done.exit_code, "is one running?" in done.stderr) == (1, True)


def test_what_may_not_be_is_refused_in_one_line(cli):
    assert "must begin with https" in cli.refused(
        "webhooks", "create", "default", "http://x.example"
    )
    assert "not public" in cli.refused("webhooks", "create", "default", "https://127.0.0.1/")
    assert "must be some of" in cli.refused(
        "webhooks", "create", "default", URL, "--types", "order.begun"
    )
    assert "no account" in cli.refused("webhooks", "create", "nobody", URL)
