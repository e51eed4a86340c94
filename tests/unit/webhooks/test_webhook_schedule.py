"""When a message is tried again, what it is signed with, and how secrets are kept."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from herder.errors import SetupError
from herder.webhooks.schedule import RETRIES_S, Reply, judge, retry_after_us
from herder.webhooks.signing import Sealer, new_secret, sign
from workers.wire import PrivateKey

NOW_US = 1_790_000_000_000_000
HOUR_S = 3600


def tried(reply, failures=0, **given):
    return judge(reply, failures, NOW_US, rng=random.Random(3), **given)


def test_a_message_is_taken_by_any_2xx_and_by_nothing_else():
    for status in (200, 201, 202, 204, 299):
        assert tried(Reply(status)).state == "delivered"
    for status in (100, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503):
        assert tried(Reply(status)).state == "pending"
    for trouble in ("timeout", "unreachable", "address_refused"):
        assert tried(Reply(None, trouble)).state == "pending"


def test_the_waits_are_the_specifications_give_or_take_a_fifth():
    rng = random.Random(5)
    whole_s = 0
    for failures, expected_s in enumerate(RETRIES_S):
        waits = set()
        for _ in range(200):
            verdict = judge(Reply(500), failures, NOW_US, rng=rng)
            assert (verdict.state, verdict.failures) == ("pending", failures + 1)
            waits.add(verdict.due_us - NOW_US)
        low, high = expected_s * 800_000, expected_s * 1_200_000
        assert low <= min(waits) < low * 1.05
        assert high * 0.95 < max(waits) <= high
        whole_s += expected_s
    assert whole_s == 75 * HOUR_S + 35 * 60 + 5
    assert judge(Reply(500), len(RETRIES_S), NOW_US, rng=rng).state == "dead"


def test_gone_is_gone_at_once():
    assert tried(Reply(410)).state == "dead"


def test_a_receiver_may_ask_for_more_time_and_not_for_less():
    assert tried(Reply(429, None, "3600")).due_us == NOW_US + HOUR_S * 1_000_000
    assert tried(Reply(429, None, "0")).due_us >= NOW_US + 4_000_000
    assert tried(Reply(503, None, "9" * 50)).due_us == NOW_US + 86_400 * 1_000_000
    moment = datetime.fromtimestamp(NOW_US // 1_000_000 + 60, UTC)
    assert retry_after_us(moment.strftime("%a, %d %b %Y %H:%M:%S GMT"), NOW_US) == 60_000_000
    for nonsense in ("", "soon", "-5", "1.5", "٣", "Mon, 99 Foo 2026 00:00:00 GMT", "\0"):
        assert retry_after_us(nonsense, NOW_US) == 0
    assert retry_after_us(None, NOW_US) == 0


def test_a_schedule_of_ones_own():
    assert tried(Reply(500), retries_s=(7,)).state == "pending"
    assert tried(Reply(500), 1, retries_s=(7,)).state == "dead"


def test_the_published_library_believes_our_signatures_and_no_others():
    old, new, strange = new_secret(), new_secret(), new_secret()
    now_s = int(datetime.now(UTC).timestamp())
    body = '{"text":"Grüße \\ud83d"}'.encode()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now_s),
        "webhook-signature": sign("msg_1", now_s, body, [new, old]),
    }
    for secret in (new, old):
        Webhook(secret).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(strange).verify(body, headers)
    for changed in ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(now_s - 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(new).verify(body, headers | changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body + b" ", headers)


def test_a_signature_is_the_one_that_the_specification_shows():
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    made = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body, [secret])
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_opened_with_the_key_and_for_the_endpoint_that_it_was_sealed_for():
    key = PrivateKey.generate()
    secret = new_secret()
    sealed = Sealer(key).seal(secret, "we_1")
    assert secret not in sealed
    assert sealed != Sealer(key).seal(secret, "we_1"), "each time with another nonce"
    assert Sealer(key).open(sealed, "we_1") == secret
    for sealer, text, endpoint in (
        (Sealer(PrivateKey.generate()), sealed, "we_1"),
        (Sealer(key), sealed, "we_2"),
        (Sealer(key), "A" + sealed[1:] if sealed[0] != "A" else "B" + sealed[1:], "we_1"),
        (Sealer(key), "no base64!", "we_1"),
        (Sealer(key), "", "we_1"),
    ):
        with pytest.raises(SetupError, match="rotate"):
            sealer.open(text, endpoint)
