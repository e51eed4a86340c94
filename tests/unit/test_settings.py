"""Settings: read from environment and file, and a wrong one is named without showing its value."""

from __future__ import annotations

import json
from fractions import Fraction
from ipaddress import ip_network

import pytest

from herder.domain.pricing import Policy, Rates
from herder.errors import SetupError
from herder.gateway.settings import GatewaySettings
from herder.settings import InitialPolicy, load, load_policy, load_settings
from herder.webhooks.addresses import Rules
from herder.webhooks.schedule import RETRIES_S
from workers.errors import SettingsError
from workers.settings import load_settings as load_worker_settings
from workers.settings import read_join_file
from workers.wire import PrivateKey

pytestmark = pytest.mark.usefixtures("clean_environment")
SECRET = "hunter2"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HERD_HOME", str(tmp_path))
    return tmp_path


def test_the_environment_goes_before_the_file_and_the_file_before_the_defaults(home, monkeypatch):
    assert load_settings().lease_s == 20
    (home / "herd.env").write_text("HERD_LEASE_S=30\nHERD_CLAIM_S=9\n")
    monkeypatch.setenv("HERD_CLAIM_S", "8")
    settings = load_settings()
    assert (settings.lease_s, settings.claim_s) == (30, 8)
    assert load_settings(lease_s=40).lease_s == 40


def test_the_defaults_of_what_prices_are_the_designs(home):
    initial = load_policy()
    assert initial.policy == Policy(Fraction(1005, 1000), Fraction(10), 600, 16, False)
    assert initial.rates == Rates(1, 1)


@pytest.mark.parametrize(
    ("load", "name", "value"),
    [
        (load_settings, "HERD_LEASE_S", SECRET),
        (load_settings, "HERD_LEASE_S", "1"),
        (load_settings, "HERD_LEASE_S", "20.5"),
        (load_settings, "HERD_MAX_ATTEMPTS", "0"),
        (load_settings, "HERD_LOG_LEVEL", SECRET),
        (load_settings, "HERD_EVENTS", SECRET),
        (load_settings, "HERD_REDIS_URL", f"http://x:{SECRET}@example.org"),
        (load_settings, "HERD_REDIS_URL", SECRET),
        (load_settings, "HERD_REDIS_URL", ""),
        (load_settings, "HERD_BROKER_URL", SECRET),
        (load_policy, "HERD_PROMPT_FEE", "0"),
        (load_policy, "HERD_PROMPT_FEE", SECRET),
        (load_policy, "HERD_FEE_PER_TOKEN", "-1"),
        (load_policy, "HERD_FEE_BUMP", SECRET),
        (load_policy, "HERD_FEE_BUMP", "nan"),
        (load_policy, "HERD_FEE_BUMP", "0.5"),
        (load_policy, "HERD_AUTO_MULTIPLIER_MAX", "inf"),
        (load_policy, "HERD_CHARGE_UNUSED", SECRET),
        (load_worker_settings, "HERD_SLOTS", "0"),
        (load_worker_settings, "HERD_SLOTS", SECRET),
        (load_worker_settings, "HERD_ENGINE", SECRET),
        (load_worker_settings, "HERD_WORKER_NAME", f"{SECRET} name"),
        (load_worker_settings, "HERD_REDIS_URL", SECRET),
        (load_worker_settings, "HERD_MODEL", f"{SECRET} model"),
        (load_worker_settings, "HERD_MODEL", ""),
        (load_policy, "HERD_MODEL", f"{SECRET} model"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line_and_its_value_is_not_shown(
    home, monkeypatch, load, name, value
):
    monkeypatch.setenv(name, value)
    with pytest.raises((SetupError, SettingsError)) as caught:
        load()
    sentence = str(caught.value)
    assert name in sentence
    assert "\n" not in sentence
    assert SECRET not in sentence
    assert value not in sentence or len(value) < 3


def test_what_a_setting_must_be_is_said_in_our_words(home, monkeypatch):
    for name, value, sentence in (
        ("HERD_LEASE_S", "1", "The setting HERD_LEASE_S must be at least 3."),
        ("HERD_LEASE_S", "20.5", "The setting HERD_LEASE_S must be a whole number."),
        ("HERD_EVENTS", "maybe", "The setting HERD_EVENTS must be true or false."),
        (
            "HERD_LOG_LEVEL",
            "LOUD",
            "The setting HERD_LOG_LEVEL must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'.",
        ),
        (
            "HERD_WEBHOOK_ALLOW_NETWORKS",
            "x",
            "The setting HERD_WEBHOOK_ALLOW_NETWORKS is invalid: it must be networks, separated by "
            "commas.",
        ),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            with pytest.raises(SetupError) as refused:
                load_settings()
            assert str(refused.value) == sentence


def test_a_database_of_another_kind_is_refused_without_its_password():
    from herder.db.database import Database

    addresses = (
        *(f"mysql://herd:{SECRET}@db/herd", f"{SECRET}:::", "", "mysql://x"),
        *(f"postgresql://herd:{SECRET}@db:{SECRET}/herd", f"postgresql://herd:{SECRET}@db"),
    )
    for url in addresses:
        with pytest.raises(SetupError) as caught:
            Database(url)
        assert "HERD_DATABASE_URL" in str(caught.value)
        assert SECRET not in str(caught.value)


# The file that a worker joins with


def test_a_worker_reads_its_key_and_its_herders(tmp_path):
    worker, herders = PrivateKey.generate(), [PrivateKey.generate() for _ in range(2)]
    path = tmp_path / "worker.json"
    content = {"worker": worker.to_jwk(), "herders": [one.public.to_jwk() for one in herders]}
    path.write_text(json.dumps(content))
    join = read_join_file(path)
    assert join.key.kid == worker.kid
    assert set(join.herders) == {one.kid for one in herders}


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"worker": {}, "herders": []}', '{"worker": "x", "herders": {}}'],
)
def test_a_broken_key_file_is_named_and_not_quoted(tmp_path, text):
    path = tmp_path / "worker.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"worker\.json"):
        read_join_file(path)


def test_a_missing_key_file_says_how_to_get_one(tmp_path):
    with pytest.raises(SettingsError, match="herd init") as caught:
        read_join_file(tmp_path / "worker.json")
    assert "HERD_WORKER_KEY" in str(caught.value)


@pytest.mark.parametrize(
    ("right", "found"),
    [
        ("", ()),
        (" * ", ("*",)),
        ("10.0.0.0/8, 192.0.2.1,2001:db8::/32", ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")),
    ],
)
def test_proxies_that_are_trusted_are_networks(home, monkeypatch, right, found):
    assert load(GatewaySettings, trusted_proxies=right).trusted_proxies == found
    monkeypatch.setenv("HERD_TRUSTED_PROXIES", right)
    assert load(GatewaySettings).trusted_proxies == found


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.1/8", "10.0.0.1,*"])
def test_a_proxy_that_would_never_be_recognised_is_refused(home, wrong):
    with pytest.raises(SetupError, match="HERD_TRUSTED_PROXIES"):
        load(GatewaySettings, trusted_proxies=wrong)


def test_where_and_when_webhooks_are_sent_is_read_once_or_refused_by_name(home, monkeypatch):
    found = load_settings()
    assert found.webhook_retries_s == RETRIES_S
    assert found.webhook_rules == Rules()
    found = load_settings(webhook_allow_networks="10.1.0.0/16,::1", webhook_retries_s="1, 2")
    assert found.webhook_retries_s == (1, 2)
    assert found.webhook_rules.may_reach("10.1.2.3")
    for name, value in (
        ("HERD_WEBHOOK_ALLOW_NETWORKS", "10.0.0.1/8"),
        ("HERD_WEBHOOK_ALLOW_NETWORKS", SECRET),
        ("HERD_WEBHOOK_RETRIES_S", ""),
        ("HERD_WEBHOOK_RETRIES_S", "5,-1"),
        ("HERD_WEBHOOK_RETRIES_S", "5,x"),
        ("HERD_WEBHOOK_RETRIES_S", ",".join(["1"] * 51)),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            with pytest.raises(SetupError, match=name) as refused:
                load_settings()
            assert SECRET not in str(refused.value)


def test_what_holds_several_values_is_parsed_once_where_it_is_read(home, monkeypatch):
    monkeypatch.setenv("HERD_MODEL_ALIASES", " gpt-4o = stub, b=org/model:q4 ,")
    monkeypatch.setenv("HERD_WEBHOOK_RETRIES_S", "1, 2")
    monkeypatch.setenv("HERD_WEBHOOK_ALLOW_NETWORKS", "10.1.0.0/16, ::1")
    (home / "herd.env").write_text('HERD_TRUSTED_PROXIES="10.0.0.1, 10.0.0.2"\n')
    found = load(GatewaySettings)
    assert found.model_aliases == {"gpt-4o": "stub", "b": "org/model:q4"}
    assert found.webhook_retries_s == (1, 2)
    assert found.webhook_allow_networks == (ip_network("10.1.0.0/16"), ip_network("::1"))
    assert found.trusted_proxies == ("10.0.0.1", "10.0.0.2")
    monkeypatch.setenv("HERD_FEE_BUMP", "1.5")
    assert load(InitialPolicy).fee_bump == Fraction(3, 2)
    for wrong in ("a", "a=", "=b", f"a=b {SECRET}"):
        monkeypatch.setenv("HERD_MODEL_ALIASES", wrong)
        with pytest.raises(SetupError, match="HERD_MODEL_ALIASES") as refused:
            load(GatewaySettings)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        (
            "https://App.Example.com:443, http://localhost:3000,",
            ("https://app.example.com", "http://localhost:3000"),
        ),
        ("http://[::1]:80,tauri://localhost", ("http://[::1]", "tauri://localhost")),
    ],
)
def test_origins_are_read_as_browsers_write_them(home, monkeypatch, text, origins):
    monkeypatch.setenv("HERD_CORS_ORIGINS", text)
    assert load(GatewaySettings).cors_origins == origins


@pytest.mark.parametrize(
    "text",
    [
        *("https://app.example.com/", "https://app.example.com/chat", "app.example.com", "null"),
        *("https://*.example.com", "https://a.example https://b.example", "https://u:p@a.example"),
        *("*, https://app.example.com", "https://app.example.com:port"),
    ],
)
def test_what_is_no_origin_is_refused(home, monkeypatch, text):
    monkeypatch.setenv("HERD_CORS_ORIGINS", text)
    with pytest.raises(SetupError) as refused:
        load(GatewaySettings)
    assert "HERD_CORS_ORIGINS" in str(refused.value)
    assert "origin" in str(refused.value)
