"""What `herd up --gateway` makes and says: play money once, a few keys, lines to paste."""

from __future__ import annotations

from contextlib import closing

import pytest

from herder.gateway.settings import GatewaySettings
from herder.host.gateway import MAX_KEYS, PLAY_MONEY, open_buyer, plan_gateway
from herder.host.up import _told
from herder.local.local_herd import LocalHerd


@pytest.fixture
def herd(make_house):
    house = make_house()
    settings = GatewaySettings(**house.settings.model_dump())
    with closing(LocalHerd(settings)) as made:
        yield made


def test_money_is_given_once_and_a_key_each_time(herd):
    first = open_buyer(herd, "default")
    assert (first.deposited, first.available) == (PLAY_MONEY, PLAY_MONEY)
    herd.accounts.withdraw("default", PLAY_MONEY, "00000000-0000-4000-8000-000000000001")
    second = open_buyer(herd, "default")
    assert (second.deposited, second.available) == (0, 0)
    assert second.key != first.key
    for shown in (first, second):
        assert herd.api_keys.recognise(shown.key).account == "default"


def test_an_account_that_has_money_is_left_as_it_is(herd):
    herd.accounts.create("ada")
    herd.accounts.deposit("ada", 5, "00000000-0000-4000-8000-000000000002")
    assert (open_buyer(herd, "ada").deposited, herd.balance("ada").available) == (0, 5)


def test_keys_of_starts_long_ago_are_revoked_and_no_other(herd):
    mine, _ = herd.api_keys.create("default", name="mine")
    keys = [open_buyer(herd, "default").key for _ in range(MAX_KEYS + 2)]
    live = [key.id for key in herd.api_keys.list("default") if key.revoked_us is None]
    assert live == [mine.id, *(text.split("_")[1] for text in keys[2:])]


def test_what_is_printed_can_be_pasted():
    url, key = "http://127.0.0.1:8080", "herd_0123_secret"
    document = {
        "workers": ["worker-1"], "slots": 16, "model": "m", "home": "/a b", "account": "default",
        "available": 100_000, "join": {"environment": {"A": "b"}, "command": "celery"},
        "gateway": {
            "url": url,
            "deposited": 100_000,
            "environment": {
                "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key,
                "HERD_URL": url, "HERD_API_KEY": key,
            },
        },
    }  # fmt: skip
    told = _told(document)
    assert f"    export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={key}\n" in told
    assert f"    export HERD_URL={url} HERD_API_KEY={key}\n" in told
    assert "play money of account default (100000 winston)" in told
    assert "OPENAI" not in _told({name: document[name] for name in document if name != "gateway"})


@pytest.mark.parametrize(
    ("host", "reached"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")]
)
def test_a_gateway_is_reached_from_this_machine(tmp_path, host, reached):
    settings = GatewaySettings(home=tmp_path, gateway_host=host, gateway_port=0)
    plan = plan_gateway(settings, {"A": "b"})
    assert plan.url == f"http://{reached}:{plan.port}"
    assert list(plan.program.command[-4:]) == ["--host", host, "--port", str(plan.port)]
    assert not plan.answers()
